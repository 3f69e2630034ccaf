package emperor

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// askables are what an owner may write, most of it in the hope for more.
var askables = []string{
	"uid = root", "uid = 1500", "uid = 0", "gid = 0", "gid = 1600", "add-gid = 0", "add-gid = 1600", "cap = sys_admin", "cap =", "cap = 21",
	"chroot = /", "chdir = /proc", "umask = 000", "logto = /etc/passwd", "env = LD_PRELOAD=/tmp/x.so", "binary-path = /tmp/x", "jailed = true",
	"unshare = user", "unshare = fs,pid,ipc,uts", "unshare2 = net", "namespace = /tmp", "ns = /tmp:x", "namespace-net = true", "ns-keep-mount = /etc:/etc",
	"pivot_root = /tmp /tmp/old", "setns = /tmp/x", "setns-socket = /tmp/x", "setns-skip = user", "setns-preopen = true", "refork = true",
	"cgroup = /sys/fs/cgroup/x", "cgroup-opt = memory.max=max", "cgroup-dir-mode = 777",
	"limit-as = 1000000", "limit-nproc = 1000000", "max-fd = 1000000", "prio = -20", "prio = 19",
	"hook-asap = exec:id", "exec-pre-jail = id", "mount-in-jail = tmpfs none /etc", "umount-post-jail = /proc", "hook-as-root = chown:/etc/shadow nobody nogroup",
	"exec-as-user = id", "hook-as-user = !exec:id", "call-as-root = system", "exec-as-vassal = id", "exec-as-user-atexit = id",
	"tuntap-device = u0", "tuntap-device = u1 /run/uwsgi0", "tuntap-device = u2 /run/systemd/private", "tuntap-device-address = auto", "tuntap-use-credentials = true",
	"userns = auto", "userns = auto", "userns = auto\nrootfs = /tmp", "userns = auto\ncap = chown,setuid", "userns = auto\ncap = sys_admin", "rootfs = /tmp", "rootfs = /", "bind = /etc", "writable = /etc",
	"emperor-protocol = true", "stop-signal = KILL", "reload-mercy = 1h", "psgi = /tmp/x", "master = true", "emperor = /tmp", "emperor-tyrant = false",
}

// T30: whatever an owner's ini says, what it gets is his own: his user and
// group, no capability, no hook, no root of the machine or of its cgroups.
func TestSoakNoIniGivesRights(t *testing.T) {
	rounds := 3000
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		rounds = 100000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	e := testEmperor(t, twoNetworks()...)
	e.Config.Tyrant = true
	path := filepath.Join(t.TempDir(), "blog.ini")
	wishes := slices.Concat(askables, grasps)
	accepted := 0
	for range rounds {
		text := "[uwsgi]\ncommand = /bin/true\n"
		for range 1 + rng.IntN(4) {
			text += wishes[rng.IntN(len(wishes))] + "\n"
		}
		e.Config.Namespaces = []uintptr{0, unix.CLONE_NEWUSER, unix.CLONE_NEWPID | unix.CLONE_NEWNS}[rng.IntN(3)]
		write(t, path, text)
		c, errs := ReadVassal("blog", path, nil)
		if errs.Failed() || tyrant(c, owner{1500, 1600}).Failed() {
			continue
		}
		r, bad := e.resolve(c)
		if bad != nil {
			continue
		}
		accepted++
		if more := beyond(r); more != "" {
			t.Fatalf("it got %s:\n%s", more, text)
		}
	}
	if accepted < rounds/20 {
		t.Errorf("only %d of %d were accepted: too few to tell", accepted, rounds)
	}
}

// beyond says what of a start is more than an owner's.
func beyond(r *resolved) string {
	p := &r.plan
	uid, gid := p.OnDisk()
	outside := func(id int) bool { return id < p.Users.First || id > p.Users.Last() }
	beyondRange := func(name string) bool { return p.Users == nil || !slices.Contains(ownCaps, name) }
	for what, more := range map[string]bool{
		"another user":              uid != 1500 || gid != 1600 || len(p.Groups) > 0 || !p.SetGroups,
		"ids of no range of its":    p.Users != nil && (outside(p.UID) || outside(p.GID) || p.Users.First < defaultPool.First),
		"capabilities":              !p.Bounded || slices.ContainsFunc(p.Caps, beyondRange) || p.KeepCaps && p.Users == nil,
		"places of root's":          p.Confined != nil && !p.Confined.Owner,
		"the emperor's environment": !p.CleanEnv,
		"another's log":             p.LogUID != 1500,
		"hooks":                     len(p.Hooks) > 0,
		"another root":              p.Chroot != "",
		"root's options":            len(p.Isolation.RootOnly()) > 0,
		"a better nice value":       p.Limits.Nice < 0,
		"a map of everybody":        r.namespaces&unix.CLONE_NEWUSER != 0 && !p.OwnIDs,
	} {
		if more {
			return what
		}
	}
	for _, l := range r.links {
		if l.Foreign {
			return "a connection of root's"
		}
	}
	return ""
}

func TestEmperorCap(t *testing.T) {
	for value, want := range map[string]string{"net_raw,CAP_SETUID": "net_raw setuid", "13 7": "net_raw setuid", "": "", "fly": `unknown capability "fly"`} {
		for _, key := range []string{"emperor-cap", "vassal-cap", "vassals-cap"} {
			c, errs := Parse(&ini.File{Name: "emperor.ini", Pairs: []ini.Pair{{Key: key, Value: value}}})
			got := strings.Join(c.Bound, " ")
			if errs.Failed() {
				got = errs[0].Message
			}
			if !c.BoundSet || !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s = %s: got %q", key, value, got)
			}
		}
	}
	if c, _ := Parse(&ini.File{Name: "emperor.ini"}); c.BoundSet {
		t.Error("bound without a word")
	}
}

// In tyrant mode the emperor's own hooks have the owner's rights too.
func TestHooksAsVassal(t *testing.T) {
	e := testEmperor(t)
	e.Config.Hooks = []vassal.Hook{{Phase: vassal.AsVassal, Action: "log"}, {Phase: vassal.AsRoot, Action: "log"}}
	if hooks := e.asVassal(); len(hooks) != 1 || hooks[0].Phase != vassal.AsVassal {
		t.Errorf("%v", hooks)
	}
	e.Config.Tyrant = true
	if hooks := e.asVassal(); len(hooks) != 1 || hooks[0].Phase != vassal.AsUser {
		t.Errorf("%v", hooks)
	}
	if e.Config.Hooks[0].Phase != vassal.AsVassal {
		t.Error("the emperor's own list changed")
	}
}
