package migrate

import (
	"slices"
	"strings"
	"testing"
)

// tables are those of a program that honours little.
func tables(honoured ...string) Tables {
	in := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	return Tables{
		Dialect:  in("include", "if-env"),
		Honoured: func(_ Side, name string) bool { return slices.Contains(honoured, name) },
		Needless: in("master", "vacuum", "lazy", "plugin"),
		Known: func(name string) bool {
			_, ofEmperor := rowOf()[sided{Emperor, name}]
			_, ofVassal := rowOf()[sided{Vassal, name}]
			return ofEmperor || ofVassal || in("http-socket", "psgi", "lazy", "harakiri")(name)
		},
	}
}

func TestJudge(t *testing.T) {
	honest := tables("emperor", "emperor-stats", "uid", "unshare", "chmod-socket")
	for _, tt := range []struct {
		name   string
		option Option
		fate   Fate
		text   string // part of it; "": there is none
	}{
		{"the dialect's", Option{"include", Vassal, false}, Works, ""},
		{"honoured, with a difference", Option{"emperor", Emperor, false}, Differs, "a folder"},
		{"honoured, nothing to say", Option{"emperor-stats", Emperor, false}, Works, ""},
		{"honoured, though uWSGI's vassals would have it too", Option{"uid", Vassal, true}, Differs, "given up"},
		{"honoured since it is in a table", Option{"unshare", Vassal, false}, Works, ""},
		{"not yet", Option{"setns", Vassal, false}, Missing, notYet},
		{"not yet, and the app's uwsgi could not do it", Option{"setns", Vassal, true}, Missing, notYet},
		{"the app's", Option{"psgi", Vassal, true}, Works, givenToApp},
		{"the app's, of a command", Option{"harakiri", Vassal, false}, Needless, ofNoApp},
		{"the app's own, though it has a row", Option{"pidfile", Vassal, true}, Works, givenToApp},
		{"the same of a command", Option{"pidfile", Vassal, false}, Missing, "fiefdom status"},
		{"a row's reason", Option{"master", Emperor, false}, Needless, "service manager"},
		{"needless in an emperor's file", Option{"lazy", Emperor, false}, Needless, ofEmperors},
		{"an app in an emperor's file", Option{"http-socket", Emperor, false}, Missing, ofAnApp},
		{"the way out", Option{"emperor-broodlord", Emperor, false}, Missing, "cheaper"},
		{"nobody's", Option{"emperr", Emperor, false}, Unknown, ""},
		{"nobody's, though the app gets it", Option{"harakiry", Vassal, true}, Unknown, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fate, text := honest.Judge(tt.option)
			if fate != tt.fate || !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
				t.Errorf("%+v: %s, %q", tt.option, fate, text)
			}
		})
	}
}

// What others add to their tables works from then on, whatever a row says of
// its absence.
func TestHonouredOptionsAreNeverMissing(t *testing.T) {
	for _, g := range groups {
		for _, r := range g.rows {
			all := tables(r.names...)
			for _, name := range r.names {
				for _, side := range r.sides() {
					if v, text := all.Judge(Option{Name: name, Side: side}); v != Works && v != Differs {
						t.Errorf("%s: %s, %s", name, v, text)
					}
				}
			}
		}
	}
}

func TestRowsSayOneThing(t *testing.T) {
	seen := map[sided]string{}
	for _, g := range groups {
		for _, r := range g.rows {
			if r.needless != "" && r.missing != "" {
				t.Errorf("%v are both needless and missing", r.names)
			}
			for _, name := range r.names {
				for _, side := range r.sides() {
					if other, twice := seen[sided{side, name}]; twice {
						t.Errorf("%s is in two rows, of %q and %q", name, other, g.title)
					}
					seen[sided{side, name}] = g.title
				}
			}
			for _, text := range []string{r.differs, r.needless, r.missing} {
				if strings.HasSuffix(text, ".") || strings.ContainsAny(text, "\n|") {
					t.Errorf("%q is no cell of a table", text)
				}
			}
		}
	}
}

func TestPageHasEveryOptionOnce(t *testing.T) {
	page := tables("uid").Page()
	for _, g := range groups {
		for _, r := range g.rows {
			for _, name := range r.names {
				if !strings.Contains(page, "`"+name+"`") {
					t.Errorf("%s is not on the page", name)
				}
			}
		}
	}
	for _, want := range []string{
		"| `uid` | differs |", "| `gid`, `add-gid` | not there | there is no such option yet |",
		"| `cron`, `cron2`, `unique-cron` | works with a uwsgi | with a command: there is no such option yet |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}
