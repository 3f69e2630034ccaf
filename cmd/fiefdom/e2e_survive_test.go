package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// die kills the emperor and takes his end.
func (r *realm) die() {
	r.t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	r.wait()
}

// survivors are the inis of three vassals that are to survive.
var survivors = map[string]string{
	"blog": agentIni,
	"shop": "[uwsgi]\ncommand = AGENT\nunshare = pid,fs\nreload-mercy = 3\n",
	"mail": "[uwsgi]\ncommand = AGENT\nattach-daemon = echo up; exec sleep 1008\ncron = -1 -1 -1 -1 -1 true\n",
}

// unlike says what of two statuses differs that must not.
func unlike(before, now emperor.Status) string {
	var differs []string
	for what, pair := range map[string][2]any{
		"pid": {before.PID, now.PID}, "since": {before.Since.UTC(), now.Since.UTC()}, "restarts": {before.Restarts, now.Restarts},
		"state": {before.State, now.State}, "uid": {before.UID, now.UID}, "addresses": {fmt.Sprint(before.Addresses), fmt.Sprint(now.Addresses)},
	} {
		if pair[0] != pair[1] {
			differs = append(differs, fmt.Sprintf("%s %v, was %v", what, pair[1], pair[0]))
		}
	}
	for i, p := range before.Processes {
		if i >= len(now.Processes) || p.Kind == "daemon" && (p.PID != now.Processes[i].PID || p.Restarts != now.Processes[i].Restarts) {
			differs = append(differs, fmt.Sprintf("processes %+v, were %+v", now.Processes, before.Processes))
			break
		}
	}
	return strings.Join(differs, "; ")
}

// An emperor that is killed costs no vassal anything, three times in a row: the
// next one goes on with the same processes, and in the end leaves nothing.
func TestVassalsSurviveTheirEmperor(t *testing.T) {
	t.Parallel()
	inBothWorlds(t, testSurvivors)
}

func testSurvivors(t *testing.T, w *nettest.World) {
	r := layRealm(t, w, "emperor", nativeNetwork)
	for name, text := range survivors {
		r.drop(name, text)
	}
	r.start()
	r.reach("blog")
	r.kill(r.ps("blog").PID) // so that it has a restart to remember
	r.await("blog", "is back", func(s emperor.Status) bool { return s.State == emperor.Running && s.Restarts == 1 })
	before := r.all()
	var first [2]int
	for n := range 3 {
		r.die()
		for name, s := range before {
			if !r.answers(s.Addresses[0]) {
				t.Errorf("%s went down with its emperor", name)
			}
		}
		r.start()
		r.same(before)
		if n == 0 {
			first = r.costs()
		}
	}
	nettest.Eventually(t, patience, fmt.Sprintf("the third adoption costs %v files, as the first did", first), func() bool {
		now := r.costs()
		return now[0] <= first[0] && now[1] == first[1]
	})
	r.killRouter()
	r.same(before)
	if n := strings.Count(r.allLogged(), "vassal adopted"); n != 9 {
		t.Errorf("%d vassals were adopted, want 9", n)
	}
	r.stop(syscall.SIGTERM)
}

// all are the survivors as soon as all that they are made of runs.
func (r *realm) all() map[string]emperor.Status {
	r.t.Helper()
	before := map[string]emperor.Status{}
	for name := range survivors {
		before[name] = r.reach(name)
	}
	before["mail"] = r.await("mail", "has its daemon", func(s emperor.Status) bool { return attached(s, "echo").PID != 0 })
	return before
}

// same says which vassals are not as they were.
func (r *realm) same(before map[string]emperor.Status) {
	r.t.Helper()
	for name, s := range before {
		if diff := unlike(s, r.reach(name)); diff != "" {
			r.t.Errorf("%s: %s", name, diff)
		}
	}
}

// costs counts the open files of the emperor and of the vault, as few as there
// are in a while: what is under way has some for a moment.
func (r *realm) costs() (least [2]int) {
	r.t.Helper()
	self, err := r.api.Self(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range 20 {
		for i, pid := range []int{self.PID, r.vaultPID()} {
			files, err := os.ReadDir(r.Path(fmt.Sprintf("/proc/%d/fd", pid)))
			if err != nil {
				r.t.Fatal(err)
			}
			if least[i] = min(least[i], len(files)); n == 0 {
				least[i] = len(files)
			}
		}
	}
	return least
}

func (r *realm) vaultPID() (pid int) {
	r.t.Helper()
	if _, err := fmt.Sscan(r.read("/run/fiefdom/emperor/vault"), &pid); err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// allLogged is the log of all emperors so far.
func (r *realm) allLogged() string {
	r.t.Helper()
	text, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// A jail that hooks have configured survives with what they did, and an owner's
// vassal as his; one that changes hands meanwhile is stopped.
func TestHooksAndOwnersSurvive(t *testing.T) {
	t.Parallel()
	const hooked = `[uwsgi]
unshare = net
tuntap-device = uwsgi0 /run/fiefdom/emperor/fief0.sock
exec-as-root = ifconfig lo up
exec-as-root = ifconfig uwsgi0 10.9.7.7 netmask 255.255.0.0 up
exec-as-root = ping -c 1 -W 5 10.9.0.1
exec-as-root = echo once >> /run/t/hooks
uid = 1501
command = AGENT
`
	r := newRealm(t, nativeNetwork, map[string]string{"hooked": hooked})
	before := r.reach("hooked")
	r.die()
	r.start()
	if now := r.reach("hooked"); unlike(before, now) != "" || r.read("/run/t/hooks") != "once\n" {
		t.Errorf("%s; hooks %q", unlike(before, now), r.read("/run/t/hooks"))
	}
	r.stop(syscall.SIGTERM)

	r = layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.writeAs(iniPath("hers"), agentIni, 1501, 1501)
	r.writeAs(iniPath("sold"), agentIni, 1501, 1501)
	r.start()
	hers, sold := r.reach("hers"), r.reach("sold")
	r.die()
	r.Run(t, "chown", "1502:1502", iniPath("sold"))
	r.start()
	if now := r.reach("hers"); unlike(hers, now) != "" {
		t.Error(unlike(hers, now))
	}
	r.await("sold", "is its new owner's", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != sold.PID && statusOf(r.proc(s.PID, "status"))["Uid"] == "1502 1502 1502 1502"
	})
	r.stop(syscall.SIGTERM)
}

// With emperor-orphans = kill the next emperor begins anew.
func TestOrphansCanBeKilled(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+"emperor-orphans = kill\n", map[string]string{"blog": agentIni})
	before := r.reach("blog")
	r.die()
	r.start()
	if s := r.reach("blog"); s.PID == before.PID || s.Addresses[0] != before.Addresses[0] {
		t.Errorf("%+v, was %+v", s, before)
	}
	if text := r.allLogged(); strings.Contains(text, "adopted") || strings.Count(r.Run(t, "ps", "-eo", "args"), " vault ") != 0 {
		t.Error("there is a vault, or somebody was adopted")
	}
	r.stop(syscall.SIGTERM)
}

// A vault that is killed is no loss as long as its emperor lives. Without both
// the vassals are ended, and start anew.
func TestVaultsAreKilledToo(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, survivors)
	before := r.all()
	first := r.vaultPID()
	r.kill(first)
	r.logged("filled another", 1)
	r.die()
	r.start()
	r.same(before)
	pid := r.vaultPID()
	r.die()
	r.kill(pid)
	r.start()
	for name, s := range before {
		if now := r.reach(name); now.PID == s.PID || now.Addresses[0] != s.Addresses[0] {
			t.Errorf("%s: %+v, was %+v", name, now, s)
		}
	}
	r.stop(syscall.SIGTERM)
}

// An emperor that does not come to run leaves everything to the next one.
func TestOrphansWaitForAnEmperorThatRuns(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, survivors)
	before := r.all()
	r.die()
	r.write("/run/t/emperor.ini", nativeNetwork+"exec-as-root = exit 7\n")
	for range 2 {
		r.launch()
		if code := r.wait(); code != exitFailed {
			t.Errorf("exit code %d, want %d", code, exitFailed)
		}
	}
	r.write("/run/t/emperor.ini", nativeNetwork)
	r.start()
	r.same(before)
	r.stop(syscall.SIGTERM)
}

// An emperor that is told to stop while it starts ends what it has found, whether
// it has come to adopt it or not.
func TestStoppedStartsEndOrphans(t *testing.T) {
	t.Parallel()
	inBothWorlds(t, func(t *testing.T, w *nettest.World) {
		r := layRealm(t, w, "emperor", nativeNetwork)
		for name, text := range survivors {
			r.drop(name, text)
		}
		r.start()
		r.all()
		r.die()
		r.write("/run/t/emperor.ini", nativeNetwork+"exec-asap = touch /run/t/begun; exec sleep 1000\n")
		r.launch()
		nettest.Eventually(t, patience, "the start is under way", func() bool { return r.exists("/run/t/begun") })
		r.stop(syscall.SIGTERM)
		if out := r.Run(t, "ps", "-eo", "args"); strings.Contains(out, agentPath(t)) || strings.Contains(out, " vault ") {
			t.Errorf("it has left\n%s", out)
		}
	})
}

// A request that was begun before the emperor was killed is answered under the
// next one.
func TestConnectionsSurviveTheEmperor(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni + "writable = /run/t\n"})
	s := r.reach("blog")
	r.Run(t, "mkdir", "-m", "777", "/run/t/open")
	answer := make(chan string, 1)
	go func() {
		out, err := r.sh(s, "touch /run/t/open/begun; while ! test -e /run/t/go; do sleep 0.05; done; echo done")
		answer <- fmt.Sprint(out, err)
	}()
	nettest.Eventually(t, patience, "the request is begun", func() bool { return r.exists("/run/t/open/begun") })
	r.die()
	r.start()
	r.reach("blog")
	r.write("/run/t/go", "")
	if got := <-answer; got != "done\n<nil>" {
		t.Errorf("the answer: %q", got)
	}
	r.stop(syscall.SIGTERM)
}

func (r *realm) exists(path string) bool {
	_, err := os.Stat(r.Path(path))
	return err == nil
}

// A real uwsgi goes on, and reloads itself by the next emperor's word.
func TestUwsgiSurvivesItsEmperor(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-required-heartbeat = 5\n")
	r.writeApps()
	ini := oneWorker + "heartbeat = 1\n"
	r.drop("app", ini)
	r.start()
	before := r.awaitPage("app", "load 1")
	for range 2 {
		r.die()
		if page, err := uwsgiGet(r.Path("/run/t/www/app.socket"), "/"); err != nil {
			t.Errorf("without an emperor: %q, %v", page, err)
		}
		r.start()
		if now := r.awaitPage("app", "load 1"); unlike(before, now) != "" {
			t.Error(unlike(before, now))
		}
	}
	r.drop("app", strings.ReplaceAll(ini, "/run/t/app.pl", "/run/t/a%%d$(b).pl"))
	if s := r.awaitPage("app", "load 2"); s.PID != before.PID || s.Restarts != before.Restarts {
		t.Errorf("it did not reload itself: %+v, the pid was %d", s, before.PID)
	}
	r.stop(syscall.SIGTERM)
}

// Wherever in its work an emperor is killed, whoever ran before and is not
// touched goes on with the same processes, nobody is there twice, and in the end
// nothing is left.
func TestSoakEmperorKilledAnywhere(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, survivors)
	before := r.all()
	crew := "[uwsgi]\ncommand = AGENT\nattach-daemon = exec sleep 1012\n"
	for round := range scaled(15, 400) {
		name := fmt.Sprint("guest", round%3)
		switch round % 5 {
		case 0, 3:
			r.drop(name, agentIni+fmt.Sprintf("env = ROUND=%d\n", round))
		case 1:
			r.drop(name, crew)
		case 2:
			_ = os.Remove(r.Path(iniPath(name)))
		}
		time.Sleep(rand.N(150 * time.Millisecond)) // anywhere is what this is about
		r.die()
		r.launch()
		time.Sleep(rand.N(300 * time.Millisecond)) // so is this one's end
	}
	r.die()
	r.start()
	r.same(before)
	inis, err := os.ReadDir(r.Path(realmDir + "/vassals"))
	if err != nil {
		t.Fatal(err)
	}
	count := func(of string) int { return strings.Count(r.Run(t, "ps", "-eo", "args"), of) }
	nettest.Eventually(t, patience, "who has an ini runs, and each is there once", func() bool {
		all := r.list()
		return len(all) == len(inis) && allRun(all) && count(agentPath(t)) == len(inis) && count("fiefdom vault") == 1
	})
	r.stop(syscall.SIGTERM)
}

func (r *realm) list() []emperor.Status {
	r.t.Helper()
	all, err := r.api.List(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}
