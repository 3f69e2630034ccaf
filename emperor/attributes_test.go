package emperor

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

func TestAttributeOptions(t *testing.T) {
	c := goodEmperor(t, "emperor-collect-attribute = plan\nemperor-collect-attr = who\nemperor-collect-attr = plan\nemperor-wrapper-attr = wrap\nemperor-chdir-attr = home\n")
	if want := []string{"plan", "who", "wrap", "home"}; !reflect.DeepEqual(c.Common.Attributes, want) || c.Wrappers.Attr != "wrap" || c.ChdirAttr != "home" {
		t.Errorf("got %+v, %q, %q", c.Common.Attributes, c.Wrappers.Attr, c.ChdirAttr)
	}
	for _, name := range []string{"emperor-collect-attr", "emperor-wrapper-attr", "emperor-chdir-attr"} {
		if _, errs := emperorOf(t, name+" = \n"); !errs.Failed() || errs[0].Pos.Line != 2 {
			t.Errorf("an empty %s: %v", name, errs)
		}
	}
}

// Only the section [emperor] of the ini itself tells, only of what is named,
// and in the dialect.
func TestAttributesAreRead(t *testing.T) {
	const asks = "emperor-collect-attr = plan\nemperor-collect-attr = who\nvassal-set = plan=set\n"
	for _, tt := range []struct {
		name, emperor, text string
		want                string // key=value@line …
		err                 string
	}{
		{"none is asked for", "", "command = a\n[emperor]\nplan = gold\n", "", ""},
		{"named", asks, "command = a\n[emperor]\nplan = gold\nother = x\nwho = %n of uid @(exec://id -u)\n", "plan=gold@4 who=blog of uid 61200@6", ""},
		{"several", asks, "[emperor]\nwho = a\n[uwsgi]\ncommand = a\n[emperor]\nwho = b\n", "who=a@3 who=b@7", ""},
		{"of the app", asks, "command = a\nplan = gold\n", "", ""},
		{"in a comment", asks, "command = a\n; see [emperor]\n", "", ""},
		{"another section", asks, "command = a\n[ emperor ]\nplan = gold\n", "", ""},
		{"an error", asks, "command = a\n[emperor]\ninclude = /no/such.ini\n", "", "blog.ini:4: cannot read /no/such.ini"},
		{"too many", asks, "command = a\n[emperor]\nfor-times = 200\nwho = %(_)\nendfor =\n", "", "blog.ini:5: 200 attributes for the emperor; at most 100"},
		{"too long", asks, "command = a\n[emperor]\nwho = " + strings.Repeat("x", 5000) + "\n", "", `blog.ini:4: attribute "who": want at most`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := expandWith(t, goodEmperor(t, tt.emperor), 61200, "blog", tt.text)
			if tt.err != "" {
				if !strings.Contains(got.Errors.Error(), tt.err) {
					t.Errorf("errors %v; want %q", got.Errors, tt.err)
				}
				return
			}
			if got.Errors.Failed() {
				t.Fatal(got.Errors)
			}
			var all []string
			for _, a := range got.Config.Attributes {
				all = append(all, fmt.Sprintf("%s=%s@%d", a.Key, a.Value, a.Pos.Line))
			}
			if text := strings.Join(all, " "); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}

// What an expander of an owner's says is his word: more than was asked for does not count.
func TestForgedAttributes(t *testing.T) {
	e := testEmperor(t)
	e.Config.Common.Attributes = []string{"plan"}
	e.newMember(iniFile{name: "blog"})
	c := goodVassal(t, "blog", "")
	c.Attributes = []ini.Pair{{Key: "other", Value: "x"}, {Key: "plan", Value: "gold"}}
	if errs := e.claim(e.vassals["blog"], &expansion{Name: "blog", Config: c}); errs.Failed() {
		t.Fatal(errs)
	}
	e.vassals["blog"].config = c
	if got, want := e.vassals["blog"].status().Attributes, (map[string][]string{"plan": {"gold"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAttributesOfAStart(t *testing.T) {
	const app = "http-socket = :80\nmodule = a\n"
	at := func(pairs ...string) (all []ini.Pair) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, ini.Pair{Key: pairs[i], Value: pairs[i+1], Pos: ini.Pos{File: "blog.ini", Line: 9}})
		}
		return all
	}
	for _, tt := range []struct {
		name, text string
		attributes []ini.Pair
		change     func(*Config)
		programs   string
		chdir      string
		err        string
	}{
		{name: "none", programs: "/w uwsgi-fallback"},
		{name: "its wrapper", attributes: at("wrap", "/mine", "wrap", "/another"), programs: "/mine uwsgi-fallback"},
		{name: "its wrapper alone", attributes: at("wrap", "/mine"), change: func(c *Config) { c.Wrappers.Wrapper, c.Wrappers.Fallback = "", nil }, programs: "/mine"},
		{name: "not named", attributes: at("wrap", "/mine"), change: func(c *Config) { c.Wrappers.Attr = "" }, programs: "/w uwsgi-fallback"},
		{name: "a folder", attributes: at("home", "/srv"), programs: "/w uwsgi-fallback", chdir: "/srv"},
		{name: "its own chdir", text: "chdir = /own\n", attributes: at("home", "/srv"), programs: "/w uwsgi-fallback", chdir: "/own"},
		{name: "a relative folder", attributes: at("home", "srv"), err: "blog.ini:9: home = srv: want an absolute path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := testEmperor(t)
			e.Config.Wrappers = Wrappers{Wrapper: "/w", Fallback: []string{"uwsgi-fallback"}, Attr: "wrap"}
			e.Config.ChdirAttr = "home"
			if tt.change != nil {
				tt.change(e.Config)
			}
			c, errs := parseApp(app + tt.text)
			if errs.Failed() {
				t.Fatal(errs)
			}
			c.Attributes = tt.attributes
			r, bad := e.resolve(c)
			if tt.err != "" {
				if bad == nil || !strings.Contains(bad.Error(), tt.err) {
					t.Errorf("%v, want %q", bad, tt.err)
				}
				return
			}
			if bad != nil {
				t.Fatal(*bad)
			}
			if got := strings.Join(r.plan.Programs, " "); got != tt.programs || r.plan.Chdir != tt.chdir {
				t.Errorf("programs %q, chdir %q; want %q, %q", got, r.plan.Chdir, tt.programs, tt.chdir)
			}
		})
	}
}

// parseApp parses the options of a vassal that is a uwsgi.
func parseApp(text string) (*vassal.Config, ini.Errors) {
	f := &ini.File{Name: "/v/blog.ini"}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		f.Pairs = append(f.Pairs, ini.Pair{Key: key, Value: value})
	}
	return vassal.Parse("blog", f)
}

// Attributes are those of the newest good ini, also after its app died.
func TestAttributesStay(t *testing.T) {
	r := newRealm(t, func(e *Emperor) {
		dir := filepath.Dir(e.Config.Monitors[0].Dir)
		wrapper := filepath.Join(dir, "mine")
		write(t, wrapper, "#!/bin/sh\necho wrapped in $PWD as $(id -u); exec sleep 1000\n")
		if err := os.Chmod(wrapper, 0o755); err != nil {
			t.Fatal(err)
		}
		e.Config.Wrappers.Attr, e.Config.ChdirAttr = "wrap", "home"
		e.Config.Common.Attributes = []string{"plan", "wrap", "home"}
	})
	wrapper := filepath.Join(filepath.Dir(r.Config.Monitors[0].Dir), "mine")
	site := "[uwsgi]\nhttp-socket = :8000\nmodule = site\nuid = 61300\n[emperor]\nplan = gold\nwrap = " + wrapper + "\nhome = /usr\n"
	r.write(t, "site", site)
	first := r.awaitState(t, "site", Running)
	want := "site | wrapped in /usr as 61300"
	nettest.Eventually(t, 20*time.Second, "its wrapper runs, in its folder, under the app's uid", func() bool { return strings.Contains(r.output.String(), want) })
	gold := map[string][]string{"plan": {"gold"}, "wrap": {wrapper}, "home": {"/usr"}}
	if !reflect.DeepEqual(first.Attributes, gold) {
		t.Errorf("attributes %v, want %v", first.Attributes, gold)
	}
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := r.await(t, "site", "runs again", func(s Status) bool { return s.State == Running && s.PID != first.PID })
	if !reflect.DeepEqual(again.Attributes, gold) {
		t.Errorf("attributes after its death %v, want %v", again.Attributes, gold)
	}
	r.write(t, "site", strings.Replace(site, "gold", "silver", 1))
	r.await(t, "site", "has another plan", func(s Status) bool { return reflect.DeepEqual(s.Attributes["plan"], []string{"silver"}) })
	r.write(t, "site", strings.Replace(site, "home = /usr", "home = usr", 1))
	bad := r.await(t, "site", "refuses its ini", func(s Status) bool {
		return s.State == Running && strings.Contains(s.Error, "home = usr: want an absolute path")
	})
	if bad.Attributes["plan"][0] != "silver" {
		t.Errorf("a bad ini changed it: %+v", bad)
	}
}
