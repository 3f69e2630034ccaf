package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// The life of one vassal as its owner leads it, by files and signals alone.
func TestLifeOfAVassal(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, nil)

	r.drop("blog", agentIni)
	s := r.reach("blog")
	addr := s.Addresses[0]
	newProcess := func(what string) {
		t.Helper()
		pid := s.PID
		s = r.await("blog", what, func(s emperor.Status) bool {
			return s.State == emperor.Running && s.PID != pid && len(s.Addresses) > 0 && r.answers(s.Addresses[0])
		})
		if s.Addresses[0] != addr {
			t.Errorf("%s: its address is %v, was %v", what, s.Addresses[0], addr)
		}
	}

	r.Run(t, "touch", iniPath("blog"))
	newProcess("is a new process after a touch")
	r.kill(s.PID)
	newProcess("is back after a kill")

	r.drop("blog", "[uwsgi]\ncommand = AGENT\ntuntap-device-address = nonsense\n")
	pid := s.PID
	s = r.await("blog", "reports its broken ini", func(s emperor.Status) bool { return s.Error != "" })
	if want := iniPath("blog") + ":3: "; s.State != emperor.Running || s.PID != pid || !r.answers(addr) || !strings.Contains(s.Error, want) {
		t.Errorf("with a broken ini: want the old process to go on and an error with %q: %+v", want, s)
	}
	if out := r.mustRun("ps"); !strings.Contains(out, "blog.ini:3") {
		t.Errorf("ps does not show the error:\n%s", out)
	}
	r.drop("blog", agentIni+"; repaired\n")
	newProcess("is a new process after the repair")
	if s.Error != "" {
		t.Errorf("repaired, and still with an error: %q", s.Error)
	}

	r.remove("blog")
	nettest.Eventually(t, patience, "the vassal is gone", func() bool { return r.ps("blog").Name == "" })
	if r.answers(addr) {
		t.Error("a removed vassal answers")
	}
	r.stop(syscall.SIGTERM)
}

func TestBrokenFromTheStartIsInvalidUntilRepaired(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": "[uwsgi]\nuid = nosuchuser\ncommand = AGENT\n"})
	s := r.awaitState("blog", emperor.Invalid)
	if !strings.Contains(s.Error, iniPath("blog")+":2: ") || s.PID != 0 {
		t.Errorf("want an error with its place and no process: %+v", s)
	}
	r.drop("blog", agentIni)
	if s := r.reach("blog"); s.Error != "" {
		t.Errorf("error after the repair: %q", s.Error)
	}
}

// The commands wait until they have done what they say.
func TestStopStartRestartReload(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	s := r.reach("blog")
	addr := s.Addresses[0]

	r.mustRun("stop", "blog")
	if s := r.ps("blog"); s.State != emperor.Stopped || s.PID != 0 || r.answers(addr) {
		t.Errorf("after stop: %+v", s)
	}
	r.mustRun("start", "blog")
	pid := r.reach("blog").PID
	for _, word := range []string{"restart", "reload"} {
		out := r.mustRun(word, "blog")
		s := r.reach("blog")
		if !strings.Contains(out, "blog is running") || s.PID == pid || s.Addresses[0] != addr {
			t.Errorf("after %s: %q, %+v; the pid was %d, the address %v", word, out, s, pid, addr)
		}
		pid = s.PID
	}
	r.drop("blog", "[uwsgi]\nno app\n")
	r.await("blog", "reports its broken ini", func(s emperor.Status) bool { return s.Error != "" })
	if out, code := r.run("reload", "blog"); code != exitFailed || r.ps("blog").PID != pid {
		t.Errorf("reload of a broken ini: exit code %d, want 1 and the old process\n%s", code, out)
	}
	if out, code := r.run("status", "blogg"); code != exitNotFound || !strings.HasSuffix(out, "no vassal \"blogg\"; did you mean \"blog\"?\n") {
		t.Errorf("exit code %d, %q", code, out)
	}
	for _, word := range []string{"status", "logs", "start", "stop", "restart", "reload"} {
		if out, code := r.run(word, "nobody"); code != exitNotFound || !strings.Contains(out, `no vassal "nobody"`) {
			t.Errorf("%s of a vassal that is not there: exit code %d, %q", word, code, out)
		}
	}
}

// A stopped vassal is back when its ini is touched.
func TestTouchStartsWhatWasStopped(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	r.mustRun("stop", "blog")
	r.Run(t, "touch", iniPath("blog"))
	r.reach("blog")
}

func TestSignalsEndEverything(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni, "shop": agentIni})
			r.reach("blog")
			r.reach("shop")
			r.stop(signal)
		})
	}
}

// An emperor that is told to stop while its vassals are still starting leaves
// as little behind as any other.
func TestStopDuringTheStart(t *testing.T) {
	t.Parallel()
	vassals := map[string]string{}
	for i := range 20 {
		vassals[fmt.Sprintf("app%02d", i)] = agentIni
	}
	r := newRealm(t, nativeNetwork, vassals)
	r.stop(syscall.SIGTERM)
}

func TestHUPReloadsAll(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni, "shop": agentIni})
	blog, shop := r.reach("blog").PID, r.reach("shop").PID
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"blog": blog, "shop": shop} {
		r.await(name, "is a new process", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != pid })
	}
}

// After kill -9 nobody dies with the emperor; the next one takes the instance
// over, keeps the addresses, and in the end leaves nothing of either.
func TestKilledEmperorAndTheNext(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog":     agentIni,
		"stubborn": "[uwsgi]\ncommand = /bin/sh -c \"trap '' TERM INT; setsid sleep 1000 & wait; exec sleep 1000\"\n",
	})
	s := r.reach("blog")
	r.awaitState("stubborn", emperor.Running)
	r.die()
	if !r.answers(s.Addresses[0]) {
		t.Error("the vassal went down with its emperor")
	}
	if out, code := r.run("ps"); code != exitNotFound {
		t.Errorf("ps without an emperor: exit code %d, want %d\n%s", code, exitNotFound, out)
	}
	r.start()
	next := r.reach("blog")
	if next.Addresses[0] != s.Addresses[0] || next.UID != s.UID {
		t.Errorf("under the next emperor blog has %v and uid %d, had %v and %d", next.Addresses, next.UID, s.Addresses, s.UID)
	}
	if got := strings.Count(r.Run(t, "ps", "-eo", "args"), agentPath(t)); got != 1 {
		t.Errorf("%d agents run, want 1", got)
	}
	r.awaitState("stubborn", emperor.Running)
	r.drop("stubborn", agentIni) // its mercy need not be waited for
	r.kill(r.ps("stubborn").PID)
	r.reach("stubborn")
	r.stop(syscall.SIGTERM)
}

// Rules of others stay as they are, byte for byte and in their order.
func TestSoakForeignRulesStay(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-e", "-c", fmt.Sprintf(foreignRules, scaled(60, 250)))
	foreign := func() string {
		var lines []string
		for _, family := range []string{"iptables-save", "ip6tables-save"} {
			for line := range strings.Lines(r.Run(t, family)) {
				if !strings.HasPrefix(line, "#") && !strings.Contains(strings.ToUpper(line), "FIEF") {
					lines = append(lines, line)
				}
			}
		}
		return strings.Join(lines, "")
	}
	before := foreign()
	r.drop("blog", agentIni)
	for range scaled(3, 1000) {
		r.start()
		r.reach("blog")
		if diff := nettest.Diff(before, foreign()); diff != "" {
			t.Errorf("rules of others changed:\n%s", diff)
		}
		r.stop(syscall.SIGTERM)
		if foreign() != before {
			t.Errorf("rules of others are not as they were:\n%s", nettest.Diff(before, foreign()))
		}
	}
}

const foreignRules = `
iptables -N ops
for i in $(seq %d); do iptables -A ops -s 203.0.113.$i -m comment --comment "rule $i" -j ACCEPT; done
iptables -A INPUT -j ops
iptables -A FORWARD -i eth0 -d 192.0.2.0/24 -j ACCEPT
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -d 198.51.100.1 -p tcp --dport 8080 -j DNAT --to 192.0.2.8:80
iptables -t mangle -A OUTPUT -p udp --dport 53 -j MARK --set-mark 7
ip6tables -A INPUT -p tcp --dport 22 -j ACCEPT
ip6tables -P FORWARD DROP
`

// Two emperors on one machine: each has its own network, vassals and names, and
// the end of one is nothing to the other.
func TestTwoInstancesSideBySide(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	const other = `[uwsgi]
emperor = /run/t/others
tuntap-router = fief1 /run/fiefdom/second/fief1.sock
tuntap-router-address = 10.8.0.1/16
tuntap-router-nat = auto
tuntap-router-attach = all
`
	a, b := layRealm(t, w, "emperor", nativeNetwork), layRealm(t, w, "second", other)
	if err := os.Mkdir(w.Path("/run/t/others"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.write("/run/t/others/blog.ini", agentIni)
	a.drop("blog", agentIni)
	a.start()
	sa := a.reach("blog")
	b.start()
	sb := b.reach("blog")
	if !a.answers(sa.Addresses[0]) {
		t.Error("the first emperor's vassal is unreachable beside the second's")
	}
	if out, code := a.run("ps"); code != exitFailed || !strings.Contains(out, "--instance: emperor second") {
		t.Errorf("ps with two emperors: exit code %d, want 1 and their names\n%s", code, out)
	}
	for _, name := range []string{"emperor", "second"} {
		if out := a.mustRun("--instance", name, "ps"); !strings.Contains(out, "blog") {
			t.Errorf("ps of %s:\n%s", name, out)
		}
	}
	a.mustRun("--config", "/run/t/second.ini", "restart", "blog")
	restarted := b.reach("blog")
	if restarted.PID == sb.PID {
		t.Error("restart by --config did nothing")
	}
	b.stop(syscall.SIGTERM)
	if s := a.ps("blog"); s.PID != sa.PID || !a.answers(sa.Addresses[0]) {
		t.Errorf("the end of the second emperor changed the first's vassal: %+v", s)
	}
	a.stop(syscall.SIGTERM)
}

func TestSecondEmperorOfTheSameNameIsRefused(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	s := r.reach("blog")
	pid := strings.TrimSpace(r.read("/run/fiefdom/emperor/lock"))
	if comm := r.read("/proc/" + pid + "/cmdline"); !strings.HasPrefix(comm, "fiefdom\x00run") {
		t.Fatalf("the lock names process %s: %q", pid, comm)
	}
	out, code := r.run("run", "/run/t/emperor.ini")
	if code != exitFailed || !strings.Contains(out, fmt.Sprintf("runs already (pid %s)", pid)) {
		t.Errorf("the second emperor: exit code %d, want 1 and the first's pid %s\n%s", code, pid, out)
	}
	if now := r.ps("blog"); now.PID != s.PID || !r.answers(s.Addresses[0]) {
		t.Errorf("the second emperor disturbed the first: %+v", now)
	}
}

func TestBadIniAmongTwentyGoodHarmsNobody(t *testing.T) {
	t.Parallel()
	vassals := map[string]string{
		"bad-option":  "[uwsgi]\ncommand = AGENT\ntuntap-device-rule = in all all dney\n",
		"bad-command": "[uwsgi]\ncommand = /no/such/program\n",
		"bad-text":    "\x00\xff[[[\n= =\n",
		"bad-taken":   "[uwsgi]\ncommand = AGENT\ntuntap-device-address = 10.9.0.7\n",
		"a-holder":    "[uwsgi]\ncommand = AGENT\ntuntap-device-address = 10.9.0.7\n",
	}
	for i := range 20 {
		vassals[fmt.Sprintf("good%02d", i)] = agentIni
	}
	r := newRealm(t, nativeNetwork, vassals)
	for name := range vassals {
		if strings.HasPrefix(name, "good") {
			r.reach(name)
		}
	}
	for _, name := range []string{"bad-option", "bad-text"} {
		r.awaitState(name, emperor.Invalid)
	}
	if s := r.awaitState("bad-taken", emperor.Invalid); !strings.Contains(s.Error, "10.9.0.7 is already used by "+iniPath("a-holder")+":3") {
		t.Errorf("the taken address: %q", s.Error)
	}
	s := r.awaitState("bad-command", emperor.Backoff)
	if !strings.Contains(s.Error, "/no/such/program") {
		t.Errorf("the command that is not there: %q", s.Error)
	}
}

func TestHangingHookDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	vassals := map[string]string{}
	for i := range 20 { // more than may start at once
		vassals[fmt.Sprintf("hangs%02d", i)] = "[uwsgi]\nexec-as-root = sleep 1000\ncommand = AGENT\n"
	}
	r := newRealm(t, nativeNetwork, vassals)
	for name := range vassals {
		r.awaitState(name, emperor.Starting)
	}
	r.drop("blog", agentIni)
	r.reach("blog")
	for name := range vassals {
		if s := r.ps(name); s.State != emperor.Starting {
			t.Errorf("%s is %s: it hangs no more, so this test shows nothing", name, s.State)
		}
	}
	r.stop(syscall.SIGTERM)
}

func TestCrashLoopBacksOff(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"crash": "[uwsgi]\ncommand = /bin/sh -c \"exit 3\"\n"})
	s := r.await("crash", "backs off after some restarts", func(s emperor.Status) bool {
		return s.State == emperor.Backoff && s.Restarts >= 4
	})
	if s.Error != "exit code 3" {
		t.Errorf("its error is %q", s.Error)
	}
	if left := time.Since(s.Since); left > time.Minute {
		t.Errorf("in back-off since %v", s.Since)
	}
	// A good ini ends the wait, however long it has grown.
	r.drop("crash", agentIni)
	r.reach("crash")
}

// What a vassal writes is kept for logs, and is in the emperor's log under its
// name; with logto it is in that file.
func TestOutputOfVassals(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"talks":  "[uwsgi]\ncommand = /bin/sh -c \"echo one; echo two >&2; exec sleep 1000\"\n",
		"writes": "[uwsgi]\nlogto = /run/t/writes.log\ncommand = /bin/sh -c \"echo three; exec sleep 1000\"\n",
	})
	nettest.Eventually(t, patience, "the lines are there", func() bool {
		log, err := os.ReadFile(r.log)
		return err == nil && bytes.Contains(log, []byte("\ntalks | two\n")) &&
			r.mustRun("logs", "talks") == "one\ntwo\n" && r.read("/run/t/writes.log") == "three\n"
	})
	log, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte("\ntalks | one\n")) || !bytes.Contains(log, []byte("\ntalks | two\n")) || bytes.Contains(log, []byte("three")) {
		t.Error("the emperor's log has not just the lines of talks")
	}
	if out := r.mustRun("status", "talks"); !strings.Contains(out, "state: running") || !strings.Contains(out, "\none\ntwo\n") {
		t.Errorf("status:\n%s", out)
	}
}
