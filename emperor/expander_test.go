package emperor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// owned writes inis of one owner and returns them as a scan sees them.
func owned(t *testing.T, dir string, uid int, texts map[string]string) []iniFile {
	t.Helper()
	for name, text := range texts {
		path := filepath.Join(dir, name+".ini")
		write(t, path, "[uwsgi]\n"+text+"\n")
		if uid != os.Getuid() {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := scan([]Monitor{{Dir: dir}})
	if len(s.errs) > 0 {
		t.Fatal(s.errs)
	}
	var all []iniFile
	for _, name := range s.order {
		all = append(all, s.found[name])
	}
	return all
}

func expandOwned(t *testing.T, uid int, texts map[string]string) map[string]expansion {
	t.Helper()
	nettest.Root(t)
	files := owned(t, sharedDir(t), uid, texts)
	x := &expanders{cgroup: testCgroup(t), limit: 3 * time.Second}
	got := map[string]expansion{}
	for _, e := range x.expandAll(t.Context(), files[0].owner, files) {
		got[e.Name] = e
	}
	if len(got) != len(texts) {
		t.Fatalf("%d of %d files", len(got), len(texts))
	}
	return got
}

// testCgroup is a cgroup of the test's own; empty where there is no v2 tree.
func testCgroup(t *testing.T) vassal.Cgroup {
	t.Helper()
	own, err := vassal.OwnCgroup()
	if err != nil {
		return ""
	}
	c := vassal.Cgroup(nettest.NewCgroup(t, string(own)))
	t.Cleanup(func() {
		if err := c.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestExpanderReads(t *testing.T) {
	got := expandOwned(t, 61200, map[string]string{
		"good":    "command = /bin/app\nset-placeholder = x=5\nenv = A=%(x)",
		"bad":     "command = /bin/app\numask = 9",
		"warning": "command = /bin/app\ntuntap-devce = a",
		"empty":   "",
	})
	if c := got["good"].Config; c == nil || len(got["good"].Errors) > 0 || c.Env[0] != "A=5" || c.Name != "good" {
		t.Errorf("good: %+v", got["good"])
	}
	if e := got["bad"].Errors; !e.Failed() || e[0].Pos.Line != 3 || !strings.HasSuffix(e[0].Pos.File, "/bad.ini") {
		t.Errorf("bad: %v", e)
	}
	if e := got["warning"].Errors; e.Failed() || len(e) != 1 {
		t.Errorf("warning: %v", e)
	}
	if e := got["empty"].Errors; !e.Failed() {
		t.Errorf("empty: %v", e)
	}
}

func TestExpanderIsTheOwner(t *testing.T) {
	t.Setenv("FIEFDOM_TEST_SECRET", "secret")
	dir := sharedDir(t)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := expandOwned(t, 61200, map[string]string{
		"id":     "command = /bin/app\nenv = ID=@(exec://id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status)",
		"steals": "command = /bin/app\nenv = S=@(" + secret + ")",
		"env":    "command = /bin/app\nenv = S=$(FIEFDOM_TEST_SECRET)",
	})
	if c := got["id"].Config; c == nil || strings.Join(strings.Fields(c.Env[0]), " ") != "ID=61200 61200 CapEff: 0000000000000000 NoNewPrivs: 1" {
		t.Errorf("id: %+v, %+v", got["id"].Config, got["id"].Errors)
	}
	for _, name := range []string{"steals", "env"} {
		b, err := json.Marshal(got[name])
		if err != nil || strings.Contains(strings.ReplaceAll(string(b), secret, ""), `S=secret`) {
			t.Errorf("%s: %s", name, b)
		}
	}
	if !got["steals"].Errors.Failed() {
		t.Errorf("steals: %+v", got["steals"])
	}
}

// A hostile ini costs its owner that ini; nothing that it started stays.
func TestExpanderBounds(t *testing.T) {
	nettest.Root(t)
	bomb := "command = /bin/app\nset-placeholder = a0=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
	for i := range 40 {
		bomb += fmt.Sprintf("set-placeholder = a%d=%%(a%d)%%(a%d)%%(a%d)%%(a%d)\n", i+1, i, i, i, i)
	}
	dir := sharedDir(t)
	began := time.Now()
	got := expandOwned(t, 61200, map[string]string{
		"bomb":   bomb + "env = A=%(a40)",
		"daemon": "command = /bin/app\nenv = A=@(exec://setsid sleep 987654 >/dev/null 2>&1 & echo $! >" + dir + "/pid; cat " + dir + "/pid)",
		"sleeps": "command = /bin/app\nenv = A=@(exec://sleep 100)",
		"good":   "command = /bin/app",
		"device": "command = /bin/app\nenv = A=@(/dev/zero)",
	})
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if got["good"].Config == nil || got["good"].Errors.Failed() {
		t.Errorf("good: %+v", got["good"])
	}
	for _, name := range []string{"bomb", "sleeps", "device"} {
		if !got[name].Errors.Failed() {
			t.Errorf("%s is fine", name)
		} else if text := got[name].Errors.Error(); len(text) > 5000 {
			t.Errorf("%s: %d bytes of errors", name, len(text))
		}
	}
	out, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range out {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "sleep\x00987654") {
			t.Errorf("a command of an ini lives on: %s", path)
		}
	}
}

func TestExpanderEndsWithItsEmperor(t *testing.T) {
	nettest.Root(t)
	nettest.Unified(t)
	cgroup := testCgroup(t) // its command is found by it alone
	r := newRealm(t, func(e *Emperor) { e.Cgroup = cgroup })
	r.write(t, "sleeps", "[uwsgi]\ncommand = /bin/app\nenv = A=@(exec://sleep 100)\n")
	r.awaitState(t, "sleeps", Stopped) // seen, not expanded yet
	began := time.Now()
	r.end()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the emperor's end took %v", took)
	}
}

func TestExpanderChecksTheOwnerOfWhatItReads(t *testing.T) {
	nettest.Root(t)
	files := owned(t, sharedDir(t), 61200, map[string]string{"a": "command = /bin/app"})
	if err := os.Chown(files[0].path, 61201, 61201); err != nil {
		t.Fatal(err)
	}
	got := new(expanders).expandAll(t.Context(), files[0].owner, files)
	if len(got) != 1 || !got[0].Errors.Failed() || !strings.Contains(got[0].Errors.Error(), "owner changed") {
		t.Errorf("%+v", got)
	}
}

// What a tenant's expander may answer, whoever wrote it.
func TestForgedAnswers(t *testing.T) {
	files := []iniFile{{name: "blog", path: "/etc/vassals/blog.ini"}}
	for name, tc := range map[string]struct {
		answer string
		want   string // an error of the file; "": the whole answer is refused
	}{
		"nothing":       {``, ""},
		"no list":       {`{"config": {}}`, ""},
		"null":          {`null`, ""},
		"too many":      {`[{}, {}]`, ""},
		"a type":        {`[{"config": {"umask": "x"}}]`, ""},
		"a direction":   {`[{"config": {"command": ["a"], "devices": [{"name": "a", "rules": [{"direction": "up"}]}]}}]`, ""},
		"an address":    {`[{"config": {"command": ["a"], "devices": [{"name": "a", "addresses": ["x"]}]}}]`, ""},
		"hook":          {`[{"config": {"command": ["a"], "hooks": [{"phase": "as-root", "action": "fly"}]}}]`, "unknown action"},
		"uid":           {`[{"config": {"command": ["a"], "uid": {"id": 4294967295}}}]`, "no number"},
		"cap":           {`[{"config": {"command": ["a"], "cap": ["x"]}}]`, "unknown capability"},
		"mercy":         {`[{"config": {"command": ["a"], "reload_mercy": 9223372036854775807}}]`, "reload-mercy"},
		"nothing to do": {`[{"config": {}}]`, "nothing to run"},
		"escapes":       {`[{"errors": [{"pos": {"file": "\u001b[2J\n"}, "message": "\u001b]0;x\u0007"}]}]`, `\x1b]0;x\x07`},
		"long":          {`[{"errors": [{"message": "` + strings.Repeat("x", 1<<20) + `"}]}]`, "xxx"},
		"warnings":      {`[{"errors": [` + strings.Repeat(`{"message": "w", "warning": true},`, 10000) + `{"message": "the error"}]}]`, "too many errors"},
		"huge":          {`[{"config": {"command": ["` + strings.Repeat("x", expandAnswer) + `"]}}]`, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAnswer([]byte(tc.answer), files)
			if tc.want == "" {
				if err == nil {
					t.Fatalf("taken: %+v", got)
				}
				return
			}
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			text := got[0].Errors.Error()
			if !got[0].Errors.Failed() || !strings.Contains(text, tc.want) {
				t.Errorf("%.200q, want %q", text, tc.want)
			}
			if len(text) > 20000 || strings.ContainsAny(text, "\x1b\x07") {
				t.Errorf("%d bytes: %.200q", len(text), text)
			}
		})
	}
	got, err := readAnswer([]byte(`[{"name": "root", "config": {"name": "root", "file": "/etc/shadow", "command": ["a"]}}]`), files)
	if err != nil || got[0].Name != "blog" || got[0].Config.Name != "blog" || got[0].Config.File != files[0].path || got[0].file != files[0] {
		t.Errorf("a name that is not its own: %+v, %v", got, err)
	}
}

// The answer about an ini that has another owner by now is nobody's word.
func TestAnswerOfAFormerOwner(t *testing.T) {
	e := testEmperor(t)
	e.Config.Tyrant = true
	before := iniFile{name: "blog", path: "blog.ini", owner: owner{61200, 61200}, id: fileID{ino: 5}}
	after := before
	after.owner = owner{61201, 61201}
	e.newMember(after)
	e.expanded([]expansion{{Name: "blog", file: before, Config: &vassal.Config{Name: "blog", Command: []string{"/tmp/evil"}}}})
	if v := e.vassals["blog"]; v.config != nil || v.state != Stopped {
		t.Errorf("%s, %+v", v.state, v.config)
	}
}

func TestExpanderArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"1"}, {"x", "1"}, {"1", "x"}, {"1", "2", "3"}} {
		if err := Expander(args, strings.NewReader("{}"), new(strings.Builder)); err == nil {
			t.Errorf("%q were taken", args)
		}
	}
}

func TestCheck(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	owned(t, dir, 61200, map[string]string{
		"a":  "command = /bin/app\ntuntap-device-address = 10.9.0.7",
		"b":  "command = /bin/app\ntuntap-device-address = 10.9.0.7",
		"c":  "command = /bin/app\numask = x",
		"d":  "command = /bin/app\ntuntap-device = u0 /run/none\ntuntap-device-mtu = 9000",
		"e":  "command = /bin/app\ntuntap-device = u0 /run/none",
		"id": "command = /bin/app\nenv = A=@(exec://id -u >" + dir + "/uid; echo)",
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	c := &Config{Monitors: []Monitor{{Dir: dir}}, State: t.TempDir()}
	errs, err := Check(c, []Network{{Device: "tun0", Socket: "/run/s", Addresses: []netip.Prefix{prefix("10.9.0.1/16")}}})
	if err != nil {
		t.Fatal(err)
	}
	var failed, warned ini.Errors
	for _, e := range errs {
		if !e.Warning {
			failed = append(failed, e)
		} else {
			warned = append(warned, e)
		}
	}
	if len(warned) != 1 || !strings.Contains(warned[0].Error(), "e.ini:3: socket /run/none belongs to no tuntap-router of this emperor (/run/s), and no other") {
		t.Errorf("warnings %v", warned)
	}
	want := []string{"b.ini:3: address 10.9.0.7 is already used by " + dir + "/a.ini:3", "c.ini:3: ", "d.ini:3: device u0: a foreign router"}
	if len(failed) != len(want) {
		t.Fatalf("%v", failed)
	}
	for i, w := range want {
		if !strings.Contains(failed[i].Error(), w) {
			t.Errorf("%v, want %q", failed[i], w)
		}
	}
	if b, err := os.ReadFile(dir + "/uid"); err != nil || strings.TrimSpace(string(b)) != "61200" {
		t.Errorf("root ran an owner's command as %q, %v", b, err)
	}
	if entries, err := os.ReadDir(c.State); err != nil || len(entries) > 0 {
		t.Errorf("check wrote %v, %v", entries, err)
	}
}
