package emperor

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// speaking is the ini of a vassal that speaks the protocol: a shell script,
// whose channel is descriptor 4. One that ends as a sleep hears nothing, and is
// not waited for.
func speaking(script string) string {
	text := "[uwsgi]\nemperor-protocol = true\ncommand = /bin/sh -c '" + script + "'\n"
	if strings.Contains(script, stay) {
		text += "reload-mercy = 0\n"
	}
	return text
}

// What the scripts say, and how they hear one byte: od prints its number.
const (
	ready  = `printf "\001" >&4; `
	loyal  = `printf "\021" >&4; `
	beats  = `printf "\032" >&4; `
	leave  = `printf "\026" >&4; `
	listen = `od -An -tu1 -N1 <&4; `
	stay   = `exec sleep 1000`
)

// awaitOutput waits until the vassals have written a text.
func (r *realm) awaitOutput(t *testing.T, text string) {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, "output: "+text, func() bool { return strings.Contains(r.output.String(), text) })
}

func (r *realm) awaitLog(t *testing.T, text string) {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, "log: "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

// awaitReady waits until the vassal has said that it is ready.
func (r *realm) awaitReady(t *testing.T, name string) Status {
	t.Helper()
	s := r.awaitState(t, name, Running)
	nettest.Eventually(t, 20*time.Second, name+" is ready", func() bool {
		is := make(chan bool, 1)
		r.call(func() { is <- r.vassals[name].said.ready })
		return <-is
	})
	return s
}

func (r *realm) touch(t *testing.T, s Status) {
	t.Helper()
	now := time.Now()
	if err := os.Chtimes(s.File, now, now); err != nil {
		t.Fatal(err)
	}
}

func TestOrderToStop(t *testing.T) {
	for name, tc := range map[string]struct {
		ini  string
		want string
	}{
		"by its byte":         {speaking(`trap "" TERM; ` + ready + listen + `echo end`), "blog |    0\nblog | end\n"},
		"also without a word": {speaking(`trap "" TERM; echo up; ` + listen + `echo end`), "blog |    0\nblog | end\n"},
		"and by its signal":   {"[uwsgi]\nstop-signal = USR1\n" + strings.TrimPrefix(speaking(`trap "echo signal; exit" USR1; `+ready+`echo up; `+listen+`while :; do sleep 0.05; done`), "[uwsgi]\n"), "blog | signal\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealm(t, nil)
			r.write(t, "blog", tc.ini)
			r.awaitState(t, "blog", Running)
			if strings.Contains(tc.ini, "echo up") {
				r.awaitOutput(t, "blog | up")
			}
			if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
				t.Errorf("%+v, %v", s, err)
			}
			r.awaitOutput(t, tc.want)
			if strings.Contains(r.log.String(), "did not stop in time") {
				t.Error("it had to be killed")
			}
		})
	}
}

func TestOrderAtTheEmperorsEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		graceful bool
		want     string
	}{"stop": {false, "blog |    0\n"}, "graceful": {true, "blog |    2\n"}} {
		t.Run(name, func(t *testing.T) {
			r := newRealm(t, func(e *Emperor) { e.Config.Graceful = tc.graceful })
			r.write(t, "blog", speaking(ready+listen))
			r.awaitState(t, "blog", Running)
			r.end()
			if out := r.output.String(); out != tc.want {
				t.Errorf("it heard %q, want %q", out, tc.want)
			}
		})
	}
}

func TestLoyalty(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(loyal+stay))
	r.write(t, "shop", speaking(stay))
	first := r.await(t, "blog", "is loyal", func(s Status) bool { return s.Loyal })
	if s := r.awaitState(t, "shop", Running); s.Loyal {
		t.Errorf("shop has said nothing: %+v", s)
	}
	for range 4 { // each at once: a back-off would be ever longer
		pid := first.PID
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		first = r.await(t, "blog", "back and loyal", func(s Status) bool { return s.Loyal && s.PID != pid })
	}
	done := make(chan int)
	r.call(func() { done <- r.vassals["blog"].backoff.deaths })
	if deaths := <-done; deaths != 0 {
		t.Errorf("%d deaths are counted", deaths)
	}
}

func TestHowLongUntilLoyal(t *testing.T) {
	command, app := &vassal.Config{Command: []string{"a"}}, &vassal.Config{App: []ini.Pair{{Key: "psgi", Value: "a.pl"}}}
	for name, tc := range map[string]struct {
		running *vassal.Config
		said    bool
		lived   time.Duration
		want    bool
	}{
		"command, young":       {command, false, time.Second, false},
		"command, old":         {command, false, 5 * time.Second, true},
		"command that said so": {command, true, 0, true},
		"uwsgi, a while":       {app, false, 30 * time.Second, false},
		"uwsgi, old":           {app, false, defaultMaxThrottle, true},
		"uwsgi that said so":   {app, true, 0, true},
		"never ran":            {nil, false, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := &member{backoff: newBackoff(&Config{}), running: tc.running, said: said{loyal: tc.said}}
			if got := v.loyal(tc.lived); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	r := newRealm(t, func(e *Emperor) { e.Config.Heartbeat = 2 * time.Second })
	// Beats for longer than the patience, then no more.
	r.write(t, "blog", speaking(`for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do `+beats+`sleep 0.2; done; echo tired; `+stay))
	r.write(t, "shop", speaking(ready+stay)) // never began
	shop := r.awaitState(t, "shop", Running)
	first := r.awaitState(t, "blog", Running)
	r.awaitOutput(t, "blog | tired")
	if s, err := r.Get(t.Context(), "blog"); err != nil || s.PID != first.PID {
		t.Errorf("with heartbeats: %+v, %v", s, err)
	}
	r.await(t, "blog", "back", func(s Status) bool { return s.State == Running && s.PID != first.PID })
	r.awaitLog(t, "no heartbeat; killing the vassal")
	r.awaitLog(t, "killed by SIGKILL by the emperor: no heartbeat")
	if s, err := r.Get(t.Context(), "shop"); err != nil || s.PID != shop.PID {
		t.Errorf("without any heartbeat: %+v, %v", s, err)
	}
}

// What the emperor has nothing to do for changes nothing.
func TestNoticesWithoutEffect(t *testing.T) {
	for _, n := range []vassal.Notice{vassal.NoticeConfig, vassal.NoticeReinforce} {
		e := testEmperor(t)
		e.newMember(iniFile{name: "blog"})
		v := e.vassals["blog"]
		v.state = Running
		before := *v
		e.heard(v, n)
		v.said.begged = false // that it asked is remembered, for one word in the log
		if v.state != Running || v.said != before.said || v.renewals != 0 {
			t.Errorf("byte %d: %+v", n, v)
		}
	}
	e := testEmperor(t)
	e.newMember(iniFile{name: "blog"})
	if e.heard(e.vassals["blog"], vassal.NoticeAccepting); !e.vassals["blog"].said.accepting {
		t.Error("accepting is not remembered")
	}
}

func TestExile(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking("exit 26"))
	s := r.await(t, "blog", "in exile", func(s Status) bool { return s.State == Stopped && s.Error != "" })
	if s.Restarts != 0 || !strings.Contains(s.Error, "exit code 26: it went into exile") {
		t.Errorf("%+v", s)
	}
	r.touch(t, s)
	nettest.Eventually(t, 20*time.Second, "it is tried again", func() bool {
		return strings.Count(r.log.String(), "vassal went into exile") == 2
	})
	r.write(t, "blog", speaking(stay))
	if s := r.awaitState(t, "blog", Running); s.Error != "" {
		t.Errorf("%+v", s)
	}
	// A command that knows nothing of the protocol means nothing by it.
	r.write(t, "shop", "[uwsgi]\ncommand = /bin/sh -c 'exit 26'\n")
	r.await(t, "shop", "started again", func(s Status) bool { return s.Restarts > 0 })
}

func TestAsksToBeStopped(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(leave+listen+`echo end`))
	if s := r.awaitState(t, "blog", Stopped); s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
	r.awaitOutput(t, "blog |    0\nblog | end\n")
}

// A vassal that is being removed cannot stay by asking to be stopped.
func TestAsksToBeStoppedWhenItIsGone(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(`trap "" TERM; `+ready+listen+`for i in 1 2 3; do `+leave+`done; echo end`))
	s := r.awaitState(t, "blog", Running)
	if err := os.Remove(s.File); err != nil {
		t.Fatal(err)
	}
	r.awaitLog(t, "vassal gone")
}

// Floods and garbage of one vassal: a line in the log, and nobody waits.
func TestGarbageAndFloods(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	for name, script := range map[string]string{
		"garbage":          `printf "\377\376abc" >&4; printf "\377" >&4; ` + loyal + stay,
		"flood of garbage": loyal + `exec yes >&4`,
		"flood of good":    loyal + `while :; do ` + ready + beats + loyal + `done`,
		"long messages":    loyal + `exec dd if=/dev/zero bs=60000 >&4`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealm(t, nil)
			r.write(t, "blog", speaking(script)+"reload-mercy = 0\n")
			r.write(t, "shop", stays)
			r.await(t, "blog", "is loyal", func(s Status) bool { return s.Loyal })
			for range 3 {
				if s, err := r.Do(t.Context(), "shop", "restart"); err != nil || s.State != Running {
					t.Errorf("%+v, %v", s, err)
				}
			}
			if name != "flood of good" {
				r.awaitLog(t, "does not know")
			}
			if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.State != Running {
				t.Errorf("%+v, %v", s, err)
			}
			r.end()
			generations := strings.Count(r.log.String(), `msg="vassal running" vassal=blog`)
			if n := strings.Count(r.log.String(), "does not know"); n > generations || n > 0 != (name != "flood of good") {
				t.Errorf("%d complaints about %d generations", n, generations)
			}
		})
	}
}

// A restart, a touch or a change ends a back-off, however long it is.
func TestWordsClearTheBackoff(t *testing.T) {
	for name, act := range map[string]func(*testing.T, *realm, Status){
		"touch": func(t *testing.T, r *realm, s Status) { r.touch(t, s) },
		"change": func(t *testing.T, r *realm, _ Status) {
			r.write(t, "blog", "; new\n"+speaking(`[ -e $FLAG ] || exit 1; `+stay))
		},
		"restart": func(t *testing.T, r *realm, _ Status) {
			if s, err := r.Do(t.Context(), "blog", "restart"); err != nil {
				t.Errorf("%+v, %v", s, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			flag := sharedDir(t) + "/flag"
			t.Setenv("FLAG", flag)
			r := newRealm(t, func(e *Emperor) { e.Config.Throttle = time.Hour })
			r.write(t, "blog", speaking(`[ -e $FLAG ] || exit 1; `+stay))
			s := r.await(t, "blog", "waits", func(s Status) bool { return s.State == Backoff })
			write(t, flag, "")
			act(t, r, s)
			r.awaitState(t, "blog", Running)
		})
	}
}

// One that begs for more of its kind is told of once.
func TestReinforcementsAreNotSent(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(`printf "\036\036" >&4; printf "\036" >&4; `+loyal+stay))
	r.await(t, "blog", "is loyal", func(s Status) bool { return s.Loyal })
	if n := strings.Count(r.log.String(), "asks for more of its kind"); n != 1 {
		t.Errorf("%d lines about it", n)
	}
}
