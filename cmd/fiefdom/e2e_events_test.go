package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// events are those that "fiefdom events --json" prints.
func (r *realm) events(args ...string) (all []emperor.Event) {
	r.t.Helper()
	for line := range strings.Lines(r.mustRun(append([]string{"events", "--json"}, args...)...)) {
		var ev emperor.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		all = append(all, ev)
	}
	return all
}

func (r *realm) awaitEvent(kind string, args ...string) (found emperor.Event) {
	r.t.Helper()
	nettest.Eventually(r.t, patience, "an event "+kind, func() bool {
		all := r.events(args...)
		i := slices.IndexFunc(all, func(ev emperor.Event) bool { return ev.Kind == kind })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// What an operator asks the morning after: what happened, to whom, and why.
func TestEvents(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog":  agentIni,
		"thief": "[uwsgi]\ncommand = AGENT\nuid = 0\ncap = net_admin,net_raw\n",
		"sick":  "[uwsgi]\ncommand = /bin/sh -c 'exit 3'\n",
		"typo":  "[uwsgi]\ncommand = AGENT\nuid = nobody at all\n",
	})
	begin := time.Now()
	follow := fiefdom("events", "-f", "blog", "--since", "1h")
	var live strings.Builder
	follow.Stdout = &live
	r.Start(t, follow)

	s, thief := r.reach("blog"), r.reach("thief")
	if ev := r.awaitEvent("running", "blog"); ev.Vassal != "blog" || ev.Fields["pid"] != float64(s.PID) || begin.Sub(ev.Time).Abs() > time.Minute {
		t.Errorf("%+v", ev)
	}
	if ev := r.awaitEvent("died", "sick"); !strings.Contains(fmt.Sprint(ev.Fields["reason"]), "exit code 3") {
		t.Errorf("%+v", ev)
	}
	if ev := r.awaitEvent("invalid", "typo"); !strings.Contains(fmt.Sprint(ev.Fields["err"]), "typo.ini:3") {
		t.Errorf("%+v", ev)
	}
	r.mustSh(thief, "ip addr add 10.9.7.7/32 dev eth0; ping -c 1 -W 1 -I 10.9.7.7 10.9.0.1 || true")
	if ev := r.awaitEvent("spoofed", "thief"); ev.Fields["src"] != "10.9.7.7" || ev.Fields["network"] != "fief0" {
		t.Errorf("%+v", ev)
	}
	r.killRouter()
	r.awaitEvent(emperor.KindRouter)
	r.reach("blog")

	out := r.mustRun("events", "--since", "1h", "blog")
	if !strings.Contains(out, "blog") || !strings.Contains(out, "vassal running") || !strings.Contains(out, fmt.Sprintf("pid=%d", s.PID)) || strings.Contains(out, "sick") {
		t.Errorf("events of blog:\n%s", out)
	}
	if out := r.mustRun("events", "--since", "0s", "blog"); out != "" {
		t.Errorf("events of no time: %q", out)
	}
	for _, tc := range []struct {
		args []string
		code int
	}{
		{[]string{"events", "nobody"}, exitNotFound},
		{[]string{"events", "--since", "soon"}, exitUsage},
		{[]string{"events", "a", "b"}, exitUsage},
	} {
		if out, code := r.run(tc.args...); code != tc.code {
			t.Errorf("%q: exit code %d, want %d: %s", tc.args, code, tc.code, out)
		}
	}

	if err := errors.Join(follow.Process.Signal(os.Interrupt), follow.Wait()); err != nil {
		t.Errorf("events -f ended with %v", err)
	}
	// The events outlive the emperor.
	r.stop(syscall.SIGTERM)
	if text := live.String(); !strings.Contains(text, "vassal running") || strings.Contains(text, "thief") {
		t.Errorf("followed:\n%s", text)
	}
	r.start()
	all := r.events()
	for i, ev := range all[1:] {
		if ev.ID <= all[i].ID {
			t.Fatalf("after %d comes %d", all[i].ID, ev.ID)
		}
	}
	if i := slices.IndexFunc(all, func(ev emperor.Event) bool { return ev.Kind == "spoofed" }); i < 0 {
		t.Error("the first emperor's events are gone")
	}
	r.remove("blog")
	r.awaitEvent("gone", "blog")
}

func TestPrintEvent(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 30, 15, 0, time.Local)
	for _, tc := range []struct {
		name string
		ev   emperor.Event
		want string
	}{
		{
			"a vassal's",
			emperor.Event{Time: at, Vassal: "blog", Kind: "running", Message: "vassal running", Fields: map[string]any{"pid": 123456789.0, "addr": []any{"10.9.0.2", "fd00::2"}}},
			"2026-01-31 12:30:15  blog          running       vassal running addr=10.9.0.2,fd00::2 pid=123456789\n",
		},
		{"the emperor's", emperor.Event{Time: at, Kind: "reload", Message: "reloading"}, "2026-01-31 12:30:15  -             reload        reloading\n"},
		{
			"hostile",
			emperor.Event{Time: at, Vassal: "a\x1b[2J", Kind: "info", Message: "two\nlines", Fields: map[string]any{"err": "a\nb\u009b \"c\""}},
			"2026-01-31 12:30:15  a?[2J         info          two lines err=\"a\\nb\\u009b \\\"c\\\"\"\n",
		},
	} {
		var out strings.Builder
		if err := printEvent(&out, tc.ev); err != nil || out.String() != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.name, out.String(), err, tc.want)
		}
	}
}
