package vassal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// everything are the namespaces that a generation can be born into.
const everything = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

const inUserNamespace = `cat /proc/self/status; echo "uid $(tr -s ' ' </proc/self/uid_map) gid $(tr -s ' ' </proc/self/gid_map)"; ` + own

// In a user namespace everybody keeps his number, and nobody gets a right over
// the host: root there has its capabilities over the namespace's own things.
func TestStartUserNamespace(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	const none, all = "0000000000000000", "000001ffffffffff"
	for name, tc := range map[string]struct {
		namespaces uintptr
		change     func(*Plan)
		differ     string
		want       map[string]string
		maps       string
	}{
		"alone": {
			unix.CLONE_NEWUSER, func(p *Plan) { p.UID, p.GID, p.SetGroups, p.Groups = 61200, 61201, true, []int{7} },
			"net user",
			map[string]string{"Uid": "61200 61200 61200 61200", "Groups": "7", "CapEff": none, "NoNewPrivs": "1"},
			"uid  0 0 4294967295 gid  0 0 4294967295",
		},
		"with all others": {
			everything, func(p *Plan) { p.UID, p.GID, p.Bounded = 61200, 61201, true },
			"ipc mnt net pid user uts",
			map[string]string{"Uid": "61200 61200 61200 61200", "CapBnd": none, "CapEff": none, "NoNewPrivs": "1"},
			"uid  0 0 4294967295 gid  0 0 4294967295",
		},
		"root": {
			everything, func(*Plan) {},
			"ipc mnt net pid user uts",
			map[string]string{"Uid": "0 0 0 0", "CapEff": all, "NoNewPrivs": "1"},
			"uid  0 0 4294967295 gid  0 0 4294967295",
		},
		"an owner": {
			everything, func(p *Plan) {
				p.UID, p.GID, p.SetGroups, p.Bounded, p.OwnIDs, p.LogUID = 61200, 61201, true, true, true, 61200
			},
			"ipc mnt net pid user uts",
			map[string]string{"Uid": "61200 61200 61200 61200", "Gid": "61201 61201 61201 61201", "Groups": "", "CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1"},
			"uid  61200 61200 1 gid  61201 61201 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(inUserNamespace)
			p.NoNewPrivs = true
			p.Mounts = tc.namespaces&unix.CLONE_NEWNS != 0
			p.Proc, p.Reaper = p.Mounts, p.Mounts
			tc.change(&p)
			before := mounts(t)
			out, exit := startApp(t, j, Launch{Plan: p, Namespaces: tc.namespaces}).end(t)
			if exit.Code != 0 {
				t.Fatalf("%v: %s", exit, out)
			}
			for field, want := range tc.want {
				if got := status(out, field); got != want {
					t.Errorf("%s is %q, want %q", field, got, want)
				}
			}
			if got := differ(t, out); got != tc.differ {
				t.Errorf("own namespaces are %q, want %q", got, tc.differ)
			}
			if !strings.Contains(out, tc.maps+"\n") {
				t.Errorf("maps: %s", out)
			}
			if after := mounts(t); after != before {
				t.Errorf("mounts of the machine changed:\n%s", nettest.Diff(before, after))
			}
		})
	}
}

// What root in the namespace tries on the host fails; over its own it has power.
func TestUserNamespaceHasNoPowerOverTheHost(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	for _, tc := range []struct{ name, script, want string }{
		{"the jail's network", "ip link set lo up 2>&1 || echo refused", "refused"},
		{"an address", "ip address add 10.9.0.9/16 dev eth0 2>&1 || echo refused", "refused"},
		{"a raw socket", "ping -c 1 -W 1 127.0.0.1 2>&1 || echo refused", "refused"},
		{"a block device", "mknod /tmp/fiefdom-test-device b 1 1 2>&1 || echo refused", "refused"},
		{"its hostname", "hostname walled && hostname", "walled"},
		{"its mounts", "mount -t tmpfs none /mnt && grep -c ' /mnt ' /proc/self/mountinfo", "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planOf(tc.script)
			p.NoNewPrivs, p.Mounts, p.Proc, p.Reaper = true, true, true, true
			out, _ := startApp(t, j, Launch{Plan: p, Namespaces: everything}).end(t)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if lines[len(lines)-1] != tc.want {
				t.Errorf("got %q, want %q", out, tc.want)
			}
		})
	}
}

// An owner's namespace knows nobody else: files of others are nobody's there,
// and the rights of its root, whom it does not know either, end before the app.
func TestOwnersNamespaceKnowsOnlyHim(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	dir := t.TempDir()
	for path := dir; path != "/tmp" && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range map[string]int{"his": 61200, "others": 61300, "roots": 0} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, id, id); err != nil {
			t.Fatal(err)
		}
	}
	p := planOf("cd " + dir + `; stat -c '%n %u' his others roots; cat his others roots 2>&1; setpriv --reuid=0 true 2>&1 || echo refused; unshare -n true 2>&1 || echo refused`)
	p.UID, p.GID, p.SetGroups, p.Bounded, p.OwnIDs, p.NoNewPrivs, p.Mounts, p.Proc, p.Reaper = 61200, 61200, true, true, true, true, true, true, true
	out, _ := startApp(t, j, Launch{Plan: p, Namespaces: everything}).end(t)
	for _, want := range []string{"his 61200\nothers 65534\nroots 65534\nhis\n", "others: Permission denied", "roots: Permission denied"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if n := strings.Count(out, "refused"); n != 2 {
		t.Errorf("%d of 2 refused: %s", n, out)
	}
}

func TestExplainClone(t *testing.T) {
	for name, tc := range map[string]struct {
		err        error
		namespaces uintptr
		hint       bool
	}{
		"none left":      {unix.ENOSPC, everything, true},
		"too deep":       {unix.EUSERS, unix.CLONE_NEWUSER, true},
		"something else": {unix.EPERM, unix.CLONE_NEWUSER, false},
		"no user":        {unix.ENOSPC, unix.CLONE_NEWPID, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := explainClone(tc.err, tc.namespaces)
			if !errors.Is(err, tc.err) || strings.Contains(err.Error(), "max_user_namespaces") != tc.hint {
				t.Errorf("got %v", err)
			}
		})
	}
}
