package emperor

import (
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

// An on demand vassal sleeps when the process that its end depends on has
// nothing to do, and its daemons with it. They are not at the door unless asked.
func TestCrewSleepsAndWakes(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	p := newPorters(t, nil)
	p.hire(t, "blog", "attach-daemon = readlink /proc/self/fd/0; exec sleep 1001\n")
	p.write(t, "gate", "[uwsgi]\nattach-daemon = exec sleep 1001\nattach-daemon2 = cmd=exec /usr/bin/python3 -S "+p.script+",stdin=true,control=true\n")
	p.write(t, "none", "[uwsgi]\nattach-daemon = exec sleep 1001\n")
	for name, daemon := range map[string]string{"blog": "readlink", "gate": "sleep"} {
		asleep := func(s Status) bool {
			return s.State == Sleeping && s.PID == 0 && len(s.Processes) == 0 && s.Error == ""
		}
		p.await(t, name, "sleeps at first", asleep)
		first := p.ask(t, name, "")
		awake := func(s Status) bool {
			return s.State == Running && running(s.process(daemon)) && (s.PID == first || s.process("python3").PID == first)
		}
		before := p.await(t, name, "is awake", awake).process(daemon).PID
		p.ask(t, name, "leave")
		p.await(t, name, "sleeps again", asleep)
		if err := unix.Kill(before, 0); err == nil {
			t.Errorf("%s: its daemon is still there", name)
		}
		first = p.ask(t, name, "")
		p.await(t, name, "is awake again", awake)
	}
	if out := p.output.String(); !strings.Contains(out, "readlink | /dev/null\n") {
		t.Errorf("the daemon's stdin: %s", out)
	}
	// A death is no wish to sleep: of the command it is its own, of gate's daemon the vassal's.
	daemon := p.awaitState(t, "blog", Running).process("readlink").PID
	p.ask(t, "blog", "die")
	p.ask(t, "blog", "")
	if s := p.awaitState(t, "blog", Running); s.process("readlink").PID != daemon || s.Restarts == 0 {
		t.Errorf("%+v, its daemon was %d", s, daemon)
	}
	p.ask(t, "gate", "die")
	p.await(t, "gate", "says why", func(s Status) bool {
		return s.State == Sleeping && strings.Contains(s.Error, "python3 ended: exit code 3")
	})
	p.await(t, "none", "has nobody for its door", func(s Status) bool { return strings.Contains(s.Error, "stdin=true in attach-daemon2") })
}

// Where processes cannot join, the ini's line says so.
func TestAttachedInAUserNamespace(t *testing.T) {
	e := testEmperor(t)
	e.Config.Namespaces = unix.CLONE_NEWNS
	if _, err := e.resolve(goodVassal(t, "blog", "uid = 1500\nattach-daemon = a")); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func() string{
		"of the vassal":  func() string { return "\nunshare = user" },
		"of the emperor": func() string { e.Config.Namespaces |= unix.CLONE_NEWUSER; return "" },
	} {
		_, err := e.resolve(goodVassal(t, "blog", "uid = 1500\nattach-daemon = a"+change()))
		if err == nil || err.Pos.Line != 4 || !strings.Contains(err.Error(), "leave user out") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A hostile expander says of an owner's daemon what groups it likes.
func TestTyrantOfForgedAttached(t *testing.T) {
	e := testEmperor(t)
	e.Config.Tyrant = true
	c := goodVassal(t, "blog", "attach-daemon2 = cmd=a,uid=1501,gid=1502")
	c.Attached[0].UID.Main, c.Attached[0].UID.Groups = 0, []int{0, 4}
	if errs := tyrant(c, owner{1501, 1502}); errs.Failed() {
		t.Fatal(errs)
	}
	r, bad := e.resolve(c)
	if bad != nil {
		t.Fatal(bad)
	}
	job := crewJob{crew: &crew{r: r}, spec: &c.Attached[0]}
	if p := job.plan(); p.UID != 1501 || p.GID != 1502 || len(p.Groups) != 0 || !p.SetGroups {
		t.Errorf("it gets %d:%d and groups %v", p.UID, p.GID, p.Groups)
	}
}

// In a cgroup of the ini's own processes are not found by the instance's: they
// are on record as long as they run.
func TestCrewInAnotherCgroup(t *testing.T) {
	nettest.Unified(t)
	own, err := vassal.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	r := newCrewRealm(t, nil)
	group := filepath.Join(string(own), fmt.Sprintf("fiefdom-emperor-test-%d-group", os.Getpid()))
	t.Cleanup(func() {
		if err := unix.Rmdir(group); err != nil {
			t.Error(err)
		}
	})
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sleep 1000\nattach-daemon = exec sleep 1001\ncgroup = "+group+"\n")
	r.write(t, "shop", "[uwsgi]\ncommand = /bin/sleep 1000\nattach-daemon = exec sleep 1001\n")
	whole := func(s Status) bool { return s.State == Running && s.PID != 0 && running(s.process("sleep")) }
	r.await(t, "shop", "runs", whole)
	s := r.await(t, "blog", "runs", whole)
	records := func() string {
		var all []string
		entries, _ := os.ReadDir(r.Instance.Path(appRecords))
		for _, e := range entries {
			b, _ := os.ReadFile(r.Instance.Path(appRecords, e.Name()))
			pid, _, _ := strings.Cut(string(b), " ")
			all = append(all, pid)
		}
		return strings.Join(all, " ")
	}
	if got := records(); got != fmt.Sprintf("%d %d", s.process("sleep").PID, s.PID) {
		t.Errorf("on record are %q, want the processes of %+v", got, s)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.process("sleep").PID)); err != nil || !strings.Contains(string(b), filepath.Base(group)+"/blog.1/") {
		t.Errorf("its daemon is in %s, %v", b, err)
	}
	if _, err := r.Do(t.Context(), "blog", "stop"); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Stopped)
	nettest.Eventually(t, 20*time.Second, "the records go", func() bool { return records() == "" })
}

// Hooks as-emperor know the pid of a process that is there.
func TestHooksOfACrew(t *testing.T) {
	nettest.NoLeaks(t)
	dir := sharedDir(t)
	r := newRealm(t, func(e *Emperor) {
		e.Config.Hooks = asEmperor("exec:echo $UWSGI_VASSAL_PID >>" + dir + "/$UWSGI_VASSAL_CONFIG")
		e.Config.StopHook = script(t, dir+"/stop", "echo stop $UWSGI_VASSAL_PID >>"+dir+"/$1\n")
	})
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sleep 1000\nattach-daemon = exec sleep 1001\n")
	r.write(t, "daemons", "[uwsgi]\nattach-daemon = exec sleep 1001\n")
	want := map[string]string{}
	for name, pid := range map[string]func(Status) int{
		"blog": func(s Status) int { return s.PID }, "daemons": func(s Status) int { return s.process("sleep").PID },
	} {
		s := r.await(t, name, "runs", func(s Status) bool { return s.State == Running && running(s.process("sleep")) && pid(s) != 0 })
		want[name] = fmt.Sprintln(pid(s))
		awaitFile(t, dir+"/"+name+".ini", want[name])
	}
	r.end()
	for name, text := range want {
		if b, err := os.ReadFile(dir + "/" + name + ".ini"); err != nil || string(b) != text+"stop "+text {
			t.Errorf("%s: %q, %v, want %q", name, b, err, text+"stop "+text)
		}
	}
}
