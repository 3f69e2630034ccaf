package ini

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

type settings struct {
	Name  string
	Rules []string
}

var settingsTable = []Option[settings]{
	{
		Name: "name", Aliases: []string{"nom"}, Kind: Text, Meaning: "what it is called", Since: "0.1",
		Set: func(s *settings, p Pair) error { s.Name = p.Value; return nil },
	},
	{Name: "rule", Kind: Rule, Repeats: true, Set: func(s *settings, p Pair) error {
		switch p.Value {
		case "bad":
			return errors.New("firewall rule: unknown action")
		case "odd":
			return fmt.Errorf("rule: %w", Error{Message: "an odd rule", Warning: true})
		}
		s.Rules = append(s.Rules, p.Value)
		return nil
	}},
	{Name: "documented", Kind: Text},
}

func TestDecode(t *testing.T) {
	at := func(line int) Pos { return Pos{"a.ini", line} }
	pairs := []Pair{
		{Key: "nom", Value: "first", Pos: at(1)},
		{Key: "rule", Value: "one", Pos: at(2)},
		{Key: "rule", Value: "bad", Pos: at(3)},
		{Key: "other", Value: "x", Pos: at(4)},
		{Key: "rule", Value: "two", Pos: at(5)},
		{Key: "name", Value: "last", Pos: at(6)},
		{Key: "rule", Value: "odd", Pos: at(7)},
		{Key: "documented", Value: "x", Pos: at(8)},
	}
	var s settings
	errs := Decode(&s, settingsTable, pairs)
	if s.Name != "last" || !slices.Equal(s.Rules, []string{"one", "two"}) {
		t.Errorf("got %+v", s)
	}
	if got, want := errs.Error(), "a.ini:3: firewall rule: unknown action\na.ini:7: an odd rule"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !errs.Failed() || errs[:0].Failed() || errs[1:].Failed() {
		t.Errorf("failed is wrong for %#v", errs)
	}
}

func TestDocs(t *testing.T) {
	docs := Docs("settings", settingsTable)
	if len(docs) != 3 || docs[0].Name != "name" || docs[0].Group != "settings" || docs[0].Since != "0.1" || !docs[1].Repeats {
		t.Errorf("got %+v", docs)
	}
	for _, d := range Dialect() {
		if d.Meaning == "" || d.Kind == "" || d.Group == "" {
			t.Errorf("half documented: %+v", d)
		}
	}
}

func TestUnknown(t *testing.T) {
	names := []string{"tuntap-device", "uid", "gid", "chdir", "tuntap-device-rule"}
	hints := map[string]string{"user": `did you mean "uid"?`}
	load := func(text string) *File {
		f, err := Load("a.ini", fakeMachine(map[string]string{"a.ini": text}))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	known := func(name string) bool { return slices.Contains(names, name) }
	for _, tt := range []struct{ name, text, want string }{
		{"known", "uid = 1\ninclude = a.ini:b\nif-env = A\nendif =\n[b]\ngid = 1", ""},
		{"a slip", "tuntap-devce = x", `a.ini:2: unknown option "tuntap-devce"; did you mean "tuntap-device"?`},
		{"a short one", "ud = x", `a.ini:2: unknown option "ud"`},
		{"one letter of three", "uix = x", `a.ini:2: unknown option "uix"; did you mean "uid"?`},
		{"another program's word", "user = x", `a.ini:2: unknown option "user"; did you mean "uid"?`},
		{"far away", "socket = x", `a.ini:2: unknown option "socket"`},
		{"each once", "x = 1\ny = 2\nx = 3", "a.ini:2: unknown option \"x\"\na.ini:3: unknown option \"y\""},
		{"a placeholder", "set-ph = x=1\ny = 2\nchdir = %(x)%(y)", ""},
		{"a placeholder in a sum", "x = 1\nuid = %(x + 1)", ""},
		{"a placeholder of if-opt", "x = 1\nif-opt = x\nuid = 1\nendif =", ""},
		{"the value of a placeholder is none", "x = y\ny = 1\nuid = %(x)", `a.ini:3: unknown option "y"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			errs := Unknown(load("[uwsgi]\n"+tt.text), known, names, hints)
			if errs.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", errs, tt.want)
			}
			if errs.Failed() {
				t.Error("these are warnings")
			}
			if strict := Unknown(load("[uwsgi]\nstrict = true\n"+tt.text), known, names, hints); strict.Failed() != (tt.want != "") {
				t.Errorf("strict: %v", strict)
			}
		})
	}
	t.Run("a flood is cheap", func(t *testing.T) {
		f := &File{}
		for i := range 100_000 {
			f.Pairs = append(f.Pairs, Pair{Key: fmt.Sprintf("tuntap-device%d", i), Pos: Pos{"a.ini", i}})
		}
		errs := Unknown(f, known, names, hints)
		if n := strings.Count(errs.Error(), "did you mean"); len(errs) != 100_000 || n > maxSuggestions {
			t.Errorf("%d errors, %d suggestions", len(errs), n)
		}
	})
}

func TestParse(t *testing.T) {
	for s, want := range map[string]bool{"": true, "true": true, "1": true, "x": true, "00": true, "false": false, "FALSE": false, "Off": false, "no": false, "0": false} {
		if got := ParseBool(s); got != want {
			t.Errorf("bool %q: got %v", s, got)
		}
	}
	for s, want := range map[string]int{"0": 0, "-3": -3, "65535": 65535} {
		if got, err := ParseInt(s); err != nil || got != want {
			t.Errorf("int %q: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "abc", "1x", "1.5", "99999999999999999999"} {
		if got, err := ParseInt(s); err == nil {
			t.Errorf("int %q: got %v, want an error", s, got)
		}
	}
	for s, want := range map[string]time.Duration{"10": 10 * time.Second, "0": 0, "0.5": 500 * time.Millisecond, "500ms": 500 * time.Millisecond, "2m": 2 * time.Minute} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("duration %q: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ".", "abc", "-1", "-5s", "5 s", "1..5", "99999999999999"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("duration %q: got %v, want an error", s, got)
		}
	}
	for s, want := range map[string]int64{"": 0, "abc": 0, "12abc": 12, " -3": -3, "+4": 4, "-": 0, "--1": 0, "99999999999999999999": 1<<63 - 1} {
		if got := atoi(s); got != want {
			t.Errorf("atoi %q: got %v, want %v", s, got, want)
		}
	}
}
