package emperor

import (
	"strings"
	"testing"

	"fiefdom/vassal"
)

func TestTyrantRefuses(t *testing.T) { // T31
	for name, tc := range map[string]struct {
		text string
		o    owner
		want string
	}{
		"root's file":  {"", owner{0, 0}, "belongs to 0:0"},
		"root's group": {"", owner{1500, 0}, "belongs to 1500:0"},
		"hook":         {"exec-as-user = true", owner{1500, 1500}, "hooks are not allowed"},
		"mount":        {"mount-as-root = a b c", owner{1500, 1500}, "hooks are not allowed"},
		"cap":          {"cap = net_raw", owner{1500, 1500}, "cap is not allowed"},
		"no cap":       {"cap =", owner{1500, 1500}, "cap is not allowed"},
		"uid":          {"uid = root", owner{1500, 1500}, "uid root is not the ini's owner"},
		"gid":          {"gid = root", owner{1500, 1500}, "gid root is not the ini's group"},
		"add-gid":      {"add-gid = root", owner{1500, 1500}, "add-gid is not allowed"},
		"chroot":       {"chroot = /srv", owner{1500, 1500}, "chroot is not allowed"},
		"pivot_root":   {"pivot_root = /srv /srv/old", owner{1500, 1500}, "pivot_root is not allowed"},
		"namespace":    {"namespace = /srv", owner{1500, 1500}, "namespace is not allowed"},
		"setns":        {"setns = /run/ns", owner{1500, 1500}, "setns is not allowed"},
		"setns-socket": {"setns-socket = /run/ns", owner{1500, 1500}, "setns-socket is not allowed"},
		"cgroup":       {"cgroup = /sys/fs/cgroup/a", owner{1500, 1500}, "cgroup is not allowed"},
		"prio":         {"prio = -1", owner{1500, 1500}, "prio -1 is not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			errs := tyrant(goodVassal(t, "blog", tc.text), tc.o)
			if !errs.Failed() || !strings.Contains(errs.Error(), tc.want) {
				t.Errorf("got %v", errs)
			}
			if tc.text != "" && (len(errs) != 1 || errs[0].Pos.Line != 3) {
				t.Errorf("not one error, at line 3: %v", errs)
			}
		})
	}
}

// What takes from an owner, and gives him nothing, is his to ask for.
func TestTyrantAllows(t *testing.T) {
	for _, text := range []string{"unshare = fs,pid,ipc,uts,net,user", "limit-as = 64", "limit-nproc = 9", "max-fd = 9", "prio = 5"} {
		if errs := tyrant(goodVassal(t, "blog", text), owner{1500, 1500}); len(errs) > 0 {
			t.Errorf("%s: %v", text, errs)
		}
	}
}

// A hostile expander can leave out where its options are, not that they are there.
func TestTyrantRefusesForged(t *testing.T) {
	c := goodVassal(t, "blog", "")
	c.Isolation = vassal.Isolation{Setns: "/run/ns", Cgroups: []string{"/sys/fs/cgroup/a"}}
	if errs := tyrant(c, owner{1500, 1500}); len(errs) != 2 || errs[0].Pos.File != c.File {
		t.Errorf("got %v", errs)
	}
}

// Without tyrant mode all that is allowed, and an owner who is not root is warned of.
func TestRightsOfRootAreWarnedOf(t *testing.T) {
	for text, want := range map[string]string{
		"publish = 80:8000":       ":3: publish = 80:8000/tcp takes a port below 1024, and the file is not root's but that of uid 1500",
		"network = host":          ":3: network = host has no jail, and the file is not root's",
		"exec-as-root = true":     ":3: hook as-root runs as root, and the file is not root's",
		"publish = 8080:8000":     "",
		"exec-as-user = /bin/ls":  "",
		"network = none\nuid = 1": "",
	} {
		errs := asRoot(goodVassal(t, "blog", text), owner{1500, 1500})
		if errs.Failed() || (len(errs) > 0) != (want != "") || !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v", text, errs)
		}
	}
}
