package emperor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// newCrewRealm is a realm with a cgroup tree, where the machine has one.
func newCrewRealm(t *testing.T, change func(*Emperor)) *realm {
	t.Helper()
	nettest.Root(t)
	nettest.NoLeaks(t)
	nettest.Unified(t)
	own, err := vassal.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dir := nettest.NewCgroup(t, string(own))
	t.Cleanup(func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				t.Errorf("cgroup left over: %s", e.Name())
			}
		}
		if err := vassal.Cgroup(dir).Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	r := newRealm(t, func(e *Emperor) {
		e.Cgroup = vassal.Cgroup(dir)
		if change != nil {
			change(e)
		}
	})
	return r
}

// process is one of a vassal's, by its name.
func (s Status) process(name string) ProcessStatus {
	for _, p := range s.Processes {
		if p.Name == name {
			return p
		}
	}
	return ProcessStatus{}
}

func (r *realm) awaitProcess(t *testing.T, name, process, what string, holds func(ProcessStatus) bool) Status {
	t.Helper()
	return r.await(t, name, process+" "+what, func(s Status) bool { return holds(s.process(process)) })
}

func running(p ProcessStatus) bool { return p.State == Running && p.PID != 0 }

// The command and every daemon have their own lives; the vassal's end is that
// of all.
func TestCrew(t *testing.T) {
	for _, namespaces := range []uintptr{0, unix.CLONE_NEWNS | unix.CLONE_NEWPID} {
		t.Run(fmt.Sprintf("namespaces %#x", namespaces), func(t *testing.T) {
			r := newCrewRealm(t, func(e *Emperor) { e.Config.Namespaces = namespaces })
			hooks := filepath.Join(r.dir, "..", "hooks")
			r.write(t, "blog", `[uwsgi]
command = /bin/sh -c "echo from the command; exec sleep 1000"
exec-as-root = echo once >>`+hooks+`
attach-daemon = exec sleep 1001
attach-daemon = echo from a daemon; trap '' TERM; sleep 1002; :
reload-mercy = 300ms
`)
			both := func(s Status) bool {
				return s.State == Running && s.PID != 0 && running(s.process("sleep")) && running(s.process("echo"))
			}
			s := r.await(t, "blog", "all run", both)
			if len(s.Processes) != 2 || s.Restarts != 0 || s.Error != "" {
				t.Errorf("%+v", s)
			}
			nettest.Eventually(t, 10*time.Second, "the lines", func() bool {
				out := r.output.String()
				return strings.Contains(out, "blog | from the command\n") && strings.Contains(out, "blog | echo | from a daemon\n")
			})

			kill := func(pid int) {
				t.Helper()
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			kill(s.process("sleep").PID)
			next := r.await(t, "blog", "its daemon is back", func(n Status) bool { return both(n) && n.process("sleep").PID != s.process("sleep").PID })
			if next.PID != s.PID || next.process("echo").PID != s.process("echo").PID || next.process("sleep").Restarts != 1 || next.Restarts != 0 {
				t.Errorf("others were touched: %+v, was %+v", next, s)
			}
			kill(next.PID)
			last := r.await(t, "blog", "its command is back", func(n Status) bool { return both(n) && n.PID != next.PID })
			if last.process("sleep").PID != next.process("sleep").PID || last.process("echo").PID != s.process("echo").PID || last.Restarts != 1 {
				t.Errorf("others were touched: %+v, was %+v", last, next)
			}
			if b, err := os.ReadFile(hooks); err != nil || string(b) != "once\n" {
				t.Errorf("hooks ran: %q, %v", b, err)
			}

			if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.State != Running && s.State != Starting {
				t.Errorf("%+v, %v", s, err)
			}
			again := r.await(t, "blog", "all are new", both)
			if again.PID == last.PID || again.process("echo").PID == last.process("echo").PID || again.process("sleep").PID == last.process("sleep").PID {
				t.Errorf("%+v, was %+v", again, last)
			}
			if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped || s.PID != 0 || len(s.Processes) != 0 {
				t.Errorf("%+v, %v", s, err)
			}
			for _, pid := range []int{again.PID, again.process("echo").PID, again.process("sleep").PID} {
				if err := unix.Kill(pid, 0); err == nil {
					t.Errorf("process %d lives", pid)
				}
			}
		})
	}
}

// Without a cgroup tree there are process groups and namespaces.
func TestCrewWithoutCgroups(t *testing.T) {
	nettest.NoLeaks(t)
	r := newRealm(t, func(e *Emperor) { e.Config.Namespaces = unix.CLONE_NEWNET })
	r.write(t, "blog", "[uwsgi]\nattach-daemon = sleep 1001; :\nattach-daemon = exec sleep 1002\nsmart-attach-daemon = /nowhere x\n")
	s := r.await(t, "blog", "both run", func(s Status) bool { return running(s.process("sleep")) && running(s.process("sleep-2")) })
	r.awaitProcess(t, "blog", "x", "is refused", func(p ProcessStatus) bool { return p.State == Backoff && strings.Contains(p.Error, "cgroup v2") })
	if err := unix.Kill(s.process("sleep").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := r.await(t, "blog", "it is back", func(n Status) bool {
		return running(n.process("sleep")) && n.process("sleep").PID != s.process("sleep").PID
	})
	if next.process("sleep-2").PID != s.process("sleep-2").PID {
		t.Errorf("the other went with it: %+v", next)
	}
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
	if left, _ := os.ReadDir(r.Instance.Path("apps")); len(left) != 0 {
		t.Errorf("records are left: %v", left)
	}
}

func TestControlDaemon(t *testing.T) {
	r := newCrewRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncommand = sleep 1000\nattach-control-daemon = exec sleep 1001\n")
	s := r.await(t, "blog", "runs", func(s Status) bool { return s.State == Running && running(s.process("sleep")) })
	if err := unix.Kill(s.process("sleep").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await(t, "blog", "all are new", func(n Status) bool {
		return n.State == Running && n.PID != 0 && n.PID != s.PID && running(n.process("sleep")) && n.process("sleep").PID != s.process("sleep").PID
	})
	if !strings.Contains(r.log.String(), "its daemon sleep ended: killed by SIGKILL") {
		t.Error("nobody says why it went down")
	}
}

func TestCrewBacksOff(t *testing.T) {
	r := newCrewRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sh -c \"exit 4\"\nattach-daemon = exit 3\nattach-daemon = exec sleep 1001\n")
	s := r.await(t, "blog", "all but one are down", func(s Status) bool {
		return s.State == Backoff && s.Restarts >= 2 && s.process("exit").State == Backoff && s.process("exit").Restarts >= 2 && running(s.process("sleep"))
	})
	if s.Error != "exit code 4" || s.process("exit").Error != "exit code 3" || s.process("sleep").Restarts != 0 {
		t.Errorf("%+v", s)
	}
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDaemonIsFollowedAndTouched(t *testing.T) {
	r := newCrewRealm(t, nil)
	dir := filepath.Dir(r.dir)
	pidfile, touch := filepath.Join(dir, "pid"), filepath.Join(dir, "touch")
	r.write(t, "blog", `[uwsgi]
attach-daemon2 = cmd=setsid sh -c 'echo $$ >`+pidfile+`; exec sleep 1000' & exit 0,pidfile=`+pidfile+`,touch=`+touch+`
smart-attach-daemon2 = `+pidfile+`2 exec sleep 1001
`)
	named := func(s Status) bool {
		b, err := os.ReadFile(pidfile)
		return err == nil && s.State == Running && running(s.process("setsid")) && fmt.Sprintln(s.process("setsid").PID) == string(b)
	}
	s := r.await(t, "blog", "its daemons are followed", func(s Status) bool { return named(s) && running(s.process("sleep")) })
	if b, err := os.ReadFile(pidfile + "2"); err != nil || string(b) != fmt.Sprintln(s.process("sleep").PID) {
		t.Errorf("the pidfile that is written for it: %q, %v; %+v", b, err, s)
	}
	if err := unix.Kill(s.process("setsid").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := r.await(t, "blog", "it is back", func(n Status) bool { return named(n) && n.process("setsid").PID != s.process("setsid").PID })
	if next.process("setsid").Restarts != 1 {
		t.Errorf("%+v", next)
	}
	write(t, touch, "")
	r.await(t, "blog", "it was touched", func(n Status) bool { return named(n) && n.process("setsid").PID != next.process("setsid").PID })
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
}

// Jobs run in the minute of the start and in the next ones, each once.
func TestJobs(t *testing.T) {
	r := newCrewRealm(t, nil)
	r.write(t, "blog", `[uwsgi]
cron = -1 -1 -1 -1 -1 echo ran; exit 5
unique-cron = -1 -1 -1 -1 -1 sleep 1000
cron2 = harakiri=1 sh -c "sleep 1001"
cron2 = minute=-60,hour=-24,day=31,month=2 never
`)
	s := r.await(t, "blog", "its jobs have run", func(s Status) bool {
		return s.State == Running && s.process("echo").State == cronIdle && s.process("echo").Runs == 1 && running(s.process("sleep"))
	})
	if p := s.process("echo"); p.Error != "exit code 5" || p.Kind != "cron" || p.PID != 0 {
		t.Errorf("%+v", p)
	}
	r.awaitProcess(t, "blog", "sh", "took too long", func(p ProcessStatus) bool {
		return p.State == cronIdle && p.Runs == 1 && p.Error == "killed by SIGKILL"
	})
	tick := func() {
		done := make(chan struct{})
		r.call(func() { r.runCrons(r.vassals["blog"]); close(done) })
		<-done
	}
	tick() // in the same minute, unless the minute ended just now
	r.call(func() {
		v := r.vassals["blog"]
		v.clock.last = v.clock.last.Add(-time.Minute)
		v.clock.high = v.clock.last
	})
	tick()
	s = r.await(t, "blog", "one ran again", func(s Status) bool { return s.process("echo").State == cronIdle && s.process("echo").Runs >= 2 })
	if s.process("sleep").Runs != 1 || s.process("echo").Runs > 3 || s.process("never").Runs != 0 {
		t.Errorf("%+v", s.Processes)
	}
	if !strings.Contains(r.log.String(), "job still runs") || !strings.Contains(r.output.String(), "blog | echo | ran\n") {
		t.Error("nobody tells of the jobs")
	}
}

// In tyrant mode a process has the owner's ids, or none.
func TestTyrantOfAttached(t *testing.T) {
	o := owner{uid: 1501, gid: 1502}
	for _, c := range []struct {
		keys string
		good bool
	}{
		{"", true},
		{",uid=1501,gid=1502", true},
		{",uid=0", false},
		{",uid=1503", false},
		{",gid=0", false},
		{",gid=1501", false},
	} {
		t.Run("cmd=a"+c.keys, func(t *testing.T) {
			cfg := goodVassal(t, "blog", "attach-daemon2 = cmd=a"+c.keys)
			if errs := tyrant(cfg, o); errs.Failed() == c.good {
				t.Errorf("%v", errs)
			}
		})
	}
}

// The emperor's own processes are nobody's to be.
func TestAttachedUnderTheRoutersUID(t *testing.T) {
	e := testEmperor(t)
	e.RouterUID, e.BridgeUID = 65519, 65520
	for uid, good := range map[int]bool{0: true, 1501: true, 65519: false, 65520: false} {
		cfg := goodVassal(t, "blog", fmt.Sprintf("attach-daemon2 = cmd=a,uid=%d", uid))
		if _, err := e.resolve(cfg); (err == nil) != good {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
}

// A crew that is told to stop while it starts, and one whose ini changes.
func TestCrewIsOvertaken(t *testing.T) {
	r := newCrewRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\nhook-as-root = exec:sleep 1000\nattach-daemon = exec sleep 1001\n")
	r.awaitState(t, "blog", Starting)
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
	for i := range 10 { // at any moment of the crew's start
		r.write(t, "blog", fmt.Sprintf("[uwsgi]\nattach-daemon = exec sleep 1001\nattach-daemon = exec sleep 1002\n; %d\n", i))
		if _, err := r.Do(t.Context(), "blog", "reload"); err != nil {
			t.Fatal(err)
		}
	}
	r.await(t, "blog", "runs", func(s Status) bool { return running(s.process("sleep")) && running(s.process("sleep-2")) })
	r.write(t, "blog", stays)
	s := r.await(t, "blog", "has a command alone", func(s Status) bool { return s.State == Running && len(s.Processes) == 0 && s.PID != 0 })
	if len(s.Command) == 0 {
		t.Errorf("%+v", s)
	}
}
