package emperor

import (
	"strings"
	"testing"

	"fiefdom/vassal"
)

// A touch is an order where the app is the same, and a new generation where it
// is not; a comment is no change.
func TestReloadsItself(t *testing.T) {
	r := newRealm(t, nil)
	script := ready + listen + ready + listen + ready + `echo thrice; ` + stay
	r.write(t, "blog", speaking(script))
	first := r.awaitReady(t, "blog")
	same := func(what string) {
		t.Helper()
		if s := r.awaitState(t, "blog", Running); s.PID != first.PID || s.Restarts != 0 {
			t.Errorf("%s: %+v, the pid was %d", what, s, first.PID)
		}
	}
	r.touch(t, first)
	r.awaitLog(t, "vassal reloaded")
	same("touch")
	r.write(t, "blog", "; hello\n"+speaking(script))
	r.awaitOutput(t, "blog | thrice")
	same("comment")
	if got := r.output.String(); got != "blog |    1\nblog |    1\nblog | thrice\n" {
		t.Errorf("it heard %q", got)
	}
	r.write(t, "blog", speaking(ready+stay))
	r.await(t, "blog", "a new generation", func(s Status) bool { return s.State == Running && s.PID != first.PID })
}

// The word waits until the app is ready again.
func TestReloadByWordWaits(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(ready+listen+`sleep 0.3; echo loaded; `+ready+stay))
	first := r.awaitReady(t, "blog")
	s, err := r.Do(t.Context(), "blog", "reload")
	if err != nil || s.PID != first.PID || s.State != Running {
		t.Errorf("%+v, %v; the pid was %d", s, err, first.PID)
	}
	r.awaitOutput(t, "blog | loaded")
	if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.PID == first.PID {
		t.Errorf("restart: %+v, %v", s, err)
	}
}

// One that never says that it is ready is not waited for.
func TestReloadOfTheSilent(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", speaking(listen+stay))
	first := r.awaitState(t, "blog", Running)
	if s, err := r.Do(t.Context(), "blog", "reload"); err != nil || s.PID != first.PID {
		t.Errorf("%+v, %v", s, err)
	}
	r.awaitOutput(t, "blog |    1\n")
}

// While it reloads itself its heart may rest.
func TestNoHeartbeatWhileReloading(t *testing.T) {
	e := testEmperor(t)
	e.newMember(iniFile{name: "blog"})
	v := e.vassals["blog"]
	v.state = Running
	e.heard(v, vassal.NoticeHeartbeat)
	if v.said.pulse == nil {
		t.Fatal("no pulse after a heartbeat")
	}
	pulse := v.said.pulse
	e.heard(v, vassal.NoticeHeartbeat)
	if v.said.pulse == pulse || pulse.Stop() {
		t.Error("the second heartbeat left the first's timer running")
	}
	pulse = v.said.pulse
	v.gen, v.said.reloading = new(vassal.Generation), true
	e.heard(v, vassal.NoticeHeartbeat)
	if v.said.pulse != nil || pulse.Stop() {
		t.Error("a heartbeat is waited for during a reload")
	}
	e.heard(v, vassal.NoticeAccepting)
	e.heard(v, vassal.NoticeHeartbeat)
	if v.said.pulse == nil || v.renewals != 1 {
		t.Errorf("after the reload: %+v", v)
	}
	v.said.forgetPulse()
}

// A uwsgi that has reloaded itself says that it accepts, others say that they
// are ready; what else is said ends no reload.
func TestEndOfAReload(t *testing.T) {
	for n, want := range map[vassal.Notice]int{
		vassal.NoticeReady: 1, vassal.NoticeAccepting: 1, vassal.NoticeLoyal: 0, vassal.NoticeHeartbeat: 0, vassal.NoticeConfig: 0,
	} {
		e := testEmperor(t)
		e.newMember(iniFile{name: "blog"})
		v := e.vassals["blog"]
		v.state, v.gen, v.said.reloading = Running, new(vassal.Generation), true
		e.heard(v, n)
		e.heard(v, n)
		if v.renewals != want || v.said.reloading != (want == 0) {
			t.Errorf("byte %d: %d reloads ended, want %d", n, v.renewals, want)
		}
	}
}

// The time for a reload is the ini's, if it names one.
func TestPatienceWithAReload(t *testing.T) {
	r := newRealm(t, nil)
	script := ready + listen + `echo deaf; ` + stay
	r.write(t, "blog", strings.Replace(speaking(script), "reload-mercy = 0", "reload-mercy = 100ms", 1))
	r.write(t, "shop", speaking(script)) // its mercy of 0 is not meant for reloads
	blog, shop := r.awaitReady(t, "blog"), r.awaitReady(t, "shop")
	r.touch(t, blog)
	r.touch(t, shop)
	r.await(t, "blog", "is started anew", func(s Status) bool { return s.State == Running && s.PID != blog.PID })
	r.awaitLog(t, "is not back from its reload")
	if s, err := r.Get(t.Context(), "shop"); err != nil || s.PID != shop.PID || s.State != Running {
		t.Errorf("without a time of its own: %+v, %v; the pid was %d", s, err, shop.PID)
	}
	waits := make(chan bool, 1)
	r.call(func() { waits <- r.vassals["shop"].said.reloading })
	if !<-waits {
		t.Error("nobody waits for shop's reload")
	}
}

// An order to reload brings the options along. The question for them that
// belongs to this reload is answered by that; others are by another document.
func TestOptionsComeOnceWithAReload(t *testing.T) {
	r := newRealm(t, nil)
	const (
		load  = `head -c 18 <&5 | tail -c 6; `
		ask   = `printf "\002" >&4; `
		count = `echo $(timeout 0.5 head -c 18 <&5 | wc -c) more bytes; `
	)
	r.write(t, "blog", speaking(load+ready+listen+load+ask+count+ready+`echo loaded; `+ask+load+stay)+"a = 1\n")
	first := r.awaitReady(t, "blog")
	r.touch(t, first)
	r.awaitOutput(t, "blog | a = 1\nblog |    1\nblog | a = 1\nblog | 0 more bytes\nblog | loaded\nblog | a = 1\n")
	if s := r.awaitState(t, "blog", Running); s.PID != first.PID || s.Restarts != 0 {
		t.Errorf("%+v, the pid was %d", s, first.PID)
	}
}
