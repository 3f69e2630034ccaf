package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// clones are the namespaces that a vassal may have beside its network: with a
// pid namespace the app starts behind a reaper, by another way.
var clones = []struct{ name, ini string }{
	{"net", "emperor-use-clone = net\n"},
	{"net and pid", "emperor-use-clone = net,pid,fs,ipc,uts\n"},
}

// Whatever an app starts, however it hides from signals, ends with it.
func TestSoakStubbornChildrenEnd(t *testing.T) {
	t.Parallel()
	cycles := scaled(3, 1000)
	for _, clone := range clones {
		t.Run(clone.name, func(t *testing.T) {
			t.Parallel()
			testStubborn(t, nettest.NewWorld(t), clone.ini, cycles)
		})
		t.Run(clone.name+" without cgroups", func(t *testing.T) {
			t.Parallel()
			testStubborn(t, withoutCgroups(t), clone.ini, cycles)
		})
	}
}

// withoutCgroups is a world that sees no cgroup tree.
func withoutCgroups(t *testing.T) *nettest.World {
	t.Helper()
	w := nettest.NewWorld(t)
	w.Run(t, "sh", "-e", "-c", "while grep -q ' - cgroup2 ' /proc/self/mountinfo; do umount -t cgroup2 -a; done")
	return w
}

// inBothWorlds tests with cgroups and without.
func inBothWorlds(t *testing.T, test func(*testing.T, *nettest.World)) {
	t.Helper()
	t.Run("with cgroups", func(t *testing.T) {
		t.Parallel()
		test(t, nettest.NewWorld(t))
	})
	t.Run("without cgroups", func(t *testing.T) {
		t.Parallel()
		test(t, withoutCgroups(t))
	})
}

// testStubborn stops and starts an app a number of times that leaves children
// behind in every way: by a double fork, in a session of their own, deaf to what
// asks; and is the same itself.
func testStubborn(t *testing.T, w *nettest.World, clone string, cycles int) {
	const script = `trap "" TERM INT HUP
(setsid sh -c 'trap "" TERM INT HUP; (sleep 77777 & sleep 77777) & sleep 77777' &)
sleep 77777
sleep 77777
`
	r := layRealm(t, w, "emperor", nativeNetwork+clone)
	r.write("/run/t/stubborn", script)
	r.drop("stubborn", "[uwsgi]\nreload-mercy = 100ms\ncommand = /bin/sh /run/t/stubborn\n")
	r.start()
	left := func() int { return strings.Count(r.Run(t, "ps", "-eo", "args"), "77777") }
	up := func() int {
		t.Helper()
		s := r.awaitState("stubborn", emperor.Running)
		nettest.Eventually(t, patience, "its children run", func() bool { return left() >= 5 })
		return s.PID
	}
	for range cycles {
		up()
		r.mustRun("stop", "stubborn")
		if n := left(); n != 0 {
			t.Fatalf("%d processes are left after the stop", n)
		}
		r.mustRun("start", "stubborn")
	}
	// Its children do not survive the app either: each start finds a clean jail.
	pid := up()
	r.kill(pid)
	r.await("stubborn", "is back", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != pid })
	up()
	nettest.Eventually(t, patience, "one app runs (its shell forks itself at first)", func() bool {
		return strings.Count(r.Run(t, "ps", "-eo", "args"), "/run/t/stubborn") == 1
	})
	r.remove("stubborn")
	nettest.Eventually(t, patience, "all are gone", func() bool { return left() == 0 })
}

// After exec an app has its three descriptors and no other. It starts in /, or
// in its ini's folder where hooks configure the device, as under uWSGI.
func TestDescriptorsOfAnApp(t *testing.T) {
	t.Parallel()
	const app = "command = /bin/sh -c \"ls -l /proc/self/fd; echo cwd $PWD end; exec sleep 1000\"\n"
	vassals := map[string]string{
		"plain":  "[uwsgi]\n" + app,
		"hooks":  "[uwsgi]\nexec-as-root = true\nhook-as-user = creat:/dev/null\n" + app,
		"device": "[uwsgi]\ntuntap-device = tun7 /run/fiefdom/emperor/fief0.sock\nexec-as-root = ifconfig tun7 10.9.7.7 up; ping -c 1 -W 1 10.9.0.1 || true\n" + app,
	}
	for _, clone := range clones {
		t.Run(clone.name, func(t *testing.T) {
			t.Parallel()
			r := newRealm(t, nativeNetwork+clone.ini, vassals)
			for name := range vassals {
				r.awaitState(name, emperor.Running)
				var out string
				nettest.Eventually(t, patience, name+" has listed its descriptors", func() bool {
					out = r.mustRun("logs", name)
					return strings.Contains(out, "end\n")
				})
				var open []string
				for line := range strings.Lines(out) {
					if before, target, ok := strings.Cut(strings.TrimSpace(line), " -> "); ok && !strings.HasPrefix(target, "/proc/") {
						open = append(open, before[strings.LastIndexByte(before, ' ')+1:])
					}
				}
				if got := strings.Join(open, " "); got != "0 1 2" {
					t.Errorf("%s has descriptors %s:\n%s", name, got, out)
				}
				dir := "/"
				if name == "device" {
					dir = "/run/t/vassals"
				}
				if !strings.Contains(out, "cwd "+dir+" end") {
					t.Errorf("%s does not start in %s:\n%s", name, dir, out)
				}
			}
		})
	}
}

// Without a word about rights an app has a uid of its own that stays, and no
// right beside it.
func TestAppHasNoRights(t *testing.T) {
	t.Parallel()
	for _, clone := range clones {
		t.Run(clone.name, func(t *testing.T) {
			t.Parallel()
			r := newRealm(t, nativeNetwork+clone.ini, map[string]string{"blog": agentIni, "shop": agentIni})
			blog, shop := r.reach("blog"), r.reach("shop")
			if blog.UID == shop.UID || blog.UID < 61184 || blog.UID > 65518 {
				t.Errorf("uids are %d and %d: want two of 61184-65518", blog.UID, shop.UID)
			}
			status := statusOf(r.proc(blog.PID, "status"))
			for field, want := range map[string]string{
				"Uid": strings.TrimSpace(strings.Repeat(strconv.Itoa(blog.UID)+" ", 4)),
				"Gid": strings.TrimSpace(strings.Repeat(strconv.Itoa(blog.UID)+" ", 4)), "Groups": "",
				"CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapBnd": noCaps, "CapAmb": noCaps, "NoNewPrivs": "1",
			} {
				if got := status[field]; got != want {
					t.Errorf("%s is %q, want %q", field, got, want)
				}
			}
			r.mustRun("restart", "blog")
			if again := r.reach("blog"); again.UID != blog.UID {
				t.Errorf("after a restart its uid is %d, was %d", again.UID, blog.UID)
			}
			// A tenant has neither the emperor's environment nor its files.
			if env := r.mustSh(r.ps("blog"), "env; cat /etc/shadow /run/fiefdom/emperor/lock || true"); strings.Contains(env, "FIEFDOM") || strings.Contains(env, "root:") {
				t.Errorf("it sees:\n%s", env)
			}
		})
	}
}

const noCaps = "0000000000000000"

// statusOf parses /proc/PID/status.
func statusOf(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// An app that asks for a capability has that one alone.
func TestAppKeepsTheCapabilitiesItNames(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": "[uwsgi]\ncap = net_raw\ncommand = AGENT\n"})
	s := r.reach("blog")
	for field, got := range statusOf(r.proc(s.PID, "status")) {
		if strings.HasPrefix(field, "Cap") && got != "0000000000002000" {
			t.Errorf("%s is %s, want cap_net_raw alone", field, got)
		}
	}
}

// Without a responder, behind a host's local stub, the vassal gets the resolvers
// that it can reach.
func TestPrivateResolvConf(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"tuntap-router-names = off\n")
	r.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
	if err := os.MkdirAll(r.Path("/run/systemd/resolve"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("/run/systemd/resolve/resolv.conf", "nameserver 198.51.100.2\n")
	r.drop("blog", agentIni)
	r.start()
	s := r.reach("blog")
	if got := r.mustSh(s, "cat /etc/resolv.conf"); !strings.Contains(got, "nameserver 198.51.100.2") || strings.Contains(got, "127.0.0.53") {
		t.Errorf("the vassal's resolv.conf:\n%s", got)
	}
	if got := r.read("/etc/resolv.conf"); got != "nameserver 127.0.0.53\n" {
		t.Errorf("the host's resolv.conf has become %q", got)
	}
}

func TestPrivateProc(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+clones[1].ini, map[string]string{"blog": agentIni, "shop": agentIni})
	r.reach("shop")
	s := r.reach("blog")
	ps := r.mustSh(s, "ps -e -o args=")
	if n := strings.Count(ps, "agent"); n != 1 || strings.Contains(ps, "fiefdom run") {
		t.Errorf("the vassal sees:\n%s", ps)
	}
	if pid, err := r.get(s.Addresses[0], "/"); err != nil || pid == fmt.Sprintln(s.PID) {
		t.Errorf("in its pid namespace the agent has the pid %q (%v)", pid, err)
	}
}

// Every hook runs once and in its place, the emperor's before all.
func TestHooksRunOnceAndInOrder(t *testing.T) {
	t.Parallel()
	const emperors = `exec-as-root = echo emperor as-root exec $(id -u) $(ip -o addr show dev fief0 | grep -o 10.9.0.1/16) >>/run/t/order
hook-as-root = appendn:/run/t/order emperor as-root hook
hook-post-jail = appendn:/run/t/order emperor post-jail
`
	const vassals = `[uwsgi]
exec-as-user = echo as-user exec $(id -u) >>/run/t/order
exec-as-root = echo as-root exec $(id -u) >>/run/t/order
exec-as-root = echo as-root exec again >>/run/t/order
hook-as-root = appendn:/run/t/order as-root hook
exec-post-jail = echo post-jail exec $(ip -o addr show dev eth0 | grep -o 'inet 10.9') >>/run/t/order
hook-as-user = appendn:/run/t/order as-user hook
writable = /run/t
uid = 2000
gid = 2000
command = AGENT
`
	const ofEmperor = "emperor post-jail\nemperor as-root hook\nemperor as-root exec 0 10.9.0.1/16\n"
	const ofVassal = "post-jail exec inet 10.9\nas-root hook\nas-root exec 0\nas-root exec again\nas-user hook\nas-user exec 2000\n"
	for _, clone := range clones {
		t.Run(clone.name, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+clone.ini+emperors)
			r.write("/run/t/order", "")
			if err := os.Chmod(r.Path("/run/t/order"), 0o666); err != nil {
				t.Fatal(err)
			}
			r.drop("blog", vassals)
			r.start()
			r.reach("blog")
			r.mustRun("restart", "blog")
			got := r.read("/run/t/order")
			if want := ofEmperor + ofVassal + ofVassal; got != want {
				t.Errorf("hooks ran as\n%swant\n%s", got, want)
			}
		})
	}
}

// A hook that fails stops the start and says where it stands.
func TestFailedHookIsTheVassalsError(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": "[uwsgi]\nexec-as-root = echo the disk is on fire >&2; exit 7\ncommand = AGENT\n",
	})
	s := r.awaitState("blog", emperor.Backoff)
	for _, want := range []string{iniPath("blog") + ":2: ", "as-root", "exit status 7", "the disk is on fire"} {
		if !strings.Contains(s.Error, want) {
			t.Errorf("the error %q does not have %q", s.Error, want)
		}
	}
}

// What an ini says of its app's surroundings holds.
func TestSurroundingsOfAnApp(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+clones[1].ini, map[string]string{"blog": `[uwsgi]
uid = 2000
gid = 2001
add-gid = 2002
chdir = /usr
umask = 027
env = GREETING=good day
env = NAME=%n
hook-post-jail = hostname:blog.example
command = AGENT
`})
	s := r.reach("blog")
	got := r.mustSh(s, "id -u; id -G; pwd; umask; echo $GREETING $NAME; hostname")
	if want := "2000\n2001 2002\n/usr\n0027\ngood day blog\nblog.example\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if host := r.Run(t, "hostname"); strings.Contains(host, "blog.example") {
		t.Error("the vassal's hostname became the host's")
	}
}
