package vassal

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

const (
	testRange = 0x70100000
	diskID    = 61200
)

// rangedPlan is one of a confined app in a user namespace of its own: as root, or
// with the number that it has on disk.
func rangedPlan(root bool) Plan {
	p := confinedPlan(LevelDefault, "")
	p.Users = &Users{First: testRange, UID: diskID, GID: diskID}
	p.UID, p.GID = testRange+diskID, testRange+diskID
	if root {
		p.UID, p.GID = testRange, testRange
	}
	return p
}

// Root of a user namespace of its own has no right over anything but its own.
func TestRootOfItsOwnRange(t *testing.T) {
	nettest.NoLeaks(t)
	tries{
		{"id -u; id -g; id -G", "0\n0\n0"},
		{"cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '", fmt.Sprintf("0 %d 65536\n 0 %[1]d 65536", testRange)},
		{"grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff)' /proc/self/status | tr '\\t\\n' '  '", "CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"},
		{"touch /tmp/x /run/x && stat -c %u /run/x", "0"},
		{"mount -t tmpfs none /tmp", "ermission denied"},
		{"unshare -U true", "permitted"},
		{"cat /etc/shadow", "ermission denied"},
		{"echo x > /proc/sys/kernel/hostname", "annot create"},
		{"echo 1 > /proc/sys/net/ipv4/ip_forward", "annot create"},
		{"hostname other", "must be root"},
		{"mknod /tmp/n c 1 3", "permitted"},
		{"ip link set eth0 down", "permitted"},
		{"kill -9 1 2>/dev/null; echo still", "still"},
		{"touch /etc/x", "ead-only"},
		{"echo gone > /dev/null && head -c3 /dev/zero | od -An -tx1", "00 00 00"},
		{"ls -d /proc/[0-9]* | grep -c '/[0-9]\\{4,\\}$'", "0"},
	}.try(t, newJail(t, Link{Device: "eth0"}), rangedPlan(true))
}

// What an app with a range writes belongs, on disk, to whom it would belong without.
func TestPlacesOfARange(t *testing.T) {
	for name, root := range map[string]bool{"as root": true, "by its number": false} {
		t.Run(name, func(t *testing.T) {
			dir := sharedFolder(t)
			for folder, owner := range map[string]int{"data": diskID, "home": diskID, "roots": 0, "others": 61201} {
				path := filepath.Join(dir, folder)
				mode := fs.FileMode(0o700)
				if folder == "others" {
					mode = 0o755
				}
				if err := os.Mkdir(path, mode); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path+"/file", []byte(folder+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				for _, p := range []string{path, path + "/file"} {
					if err := os.Chown(p, owner, owner); err != nil {
						t.Fatal(err)
					}
				}
			}
			p := rangedPlan(root)
			me := fmt.Sprint(p.Users.Inside(p.UID))
			p.Confined.Writable = []string{dir + "/data", dir + "/roots"}
			p.Confined.Binds = []Bind{{Source: dir + "/others", Target: "/run/others"}}
			p.Confined.Reads, p.Chdir = []string{dir + "/home"}, dir+"/home"
			tries{
				{"cat file", "home"},
				{"touch x", "annot touch"},
				{"cat " + dir + "/data/file && stat -c %u:%g " + dir + "/data/file", "data\n" + me + ":" + me},
				{"echo new > " + dir + "/data/new && chmod 4755 " + dir + "/data/new && mkdir " + dir + "/data/sub && echo made", "made"},
				{"chown 5 " + dir + "/data/new", "permitted"},
				{"cat " + dir + "/roots/file", "ermission denied"},
				{"touch " + dir + "/roots/x", "ermission denied"},
				{"cat /run/others/file", "ermission denied"},
				{"touch /run/others/x", "ermission denied"},
			}.try(t, newJail(t, Link{Device: "eth0"}), p)
			for _, made := range []string{"data/new", "data/sub"} {
				if owner := ownerOf(t, filepath.Join(dir, made)); owner != diskID {
					t.Errorf("%s belongs to %d", made, owner)
				}
			}
		})
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// In a root that the ini brings everybody has his own number, and nobody can write;
// places in it are the app's.
func TestRootfsOfARange(t *testing.T) {
	root := filepath.Join(sharedFolder(t), "root")
	nettest.Rootfs(t, root, "ls", "cat", "touch", "id", "stat", "chmod")
	for _, name := range []string{"run", "sys", "data", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/etc/secret", []byte("of the tree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, owner := range map[string]int{"data": diskID, "var/lib": 1} {
		if err := os.Chown(filepath.Join(root, name), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	p := rangedPlan(true)
	p.Isolation = Isolation{Root: root, Rootfs: true}
	p.Confined.Writable = []string{"/data"}
	tries{
		{"id -u", "0"},
		{"stat -c %u /etc /var/lib /data", "0\n1\n0"},
		{"cat /etc/secret", "of the tree"},
		{"touch /etc/x", "ead-only"},
		{"touch /data/x && echo made", "made"},
		{"touch /run/x /tmp/x && echo made", "made"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
	if owner := ownerOf(t, root+"/data/x"); owner != diskID {
		t.Errorf("the file belongs to %d", owner)
	}
}

// until returns the lines that the app writes before one.
func (s *started) until(t *testing.T, last string) (before string) {
	t.Helper()
	for {
		line := s.line(t)
		if line == last {
			return before
		}
		before += line + "\n"
	}
}

// A command beside an app with a range has the app's namespaces, all of them, and
// its user.
func TestEnterARange(t *testing.T) {
	nettest.NoLeaks(t)
	p := rangedPlan(true)
	const script = "id -u; cat /proc/self/uid_map; for n in user mnt net pid ipc uts; do readlink /proc/self/ns/$n; done; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; pwd"
	p.Args = []string{"/bin/sh", "-c", script + "; touch /tmp/of-the-app; echo ready; exec sleep 1000"}
	app := startApp(t, newJail(t, Link{Device: "eth0"}), Launch{Plan: p, Namespaces: fullNamespaces, Cgroup: newCgroup(t)})
	of := app.until(t, "ready")
	out, exit := app.mustEnter(t, script+"; ls /tmp; exit 7").end(t)
	if exit.Code != 7 {
		t.Errorf("it ended with %v", exit)
	}
	if out != of+"of-the-app\n" {
		t.Errorf("beside the app:\n%s\nthe app:\n%s", out, of)
	}
	app.Kill()
	app.end(t)
}

// Two apps of one number inside, with neighbouring ranges, are strangers.
func TestRangesAreApart(t *testing.T) {
	dir := sharedFolder(t)
	shared := dir + "/shared"
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	one, other := rangedPlan(true), rangedPlan(true)
	other.Users.First += RangeSize
	other.Users.UID, other.Users.GID = diskID+1, diskID+1
	other.UID, other.GID = other.Users.First, other.Users.First
	one.Confined.Writable, other.Confined.Writable = []string{shared}, []string{shared}
	one.Args = []string{"/bin/sh", "-c", "umask 077; echo secret > " + shared + "/file; echo ready; exec sleep 1000"}
	app := startApp(t, newJail(t, Link{Device: "eth0"}), Launch{Plan: one, Namespaces: fullNamespaces})
	app.until(t, "ready")
	tries{
		{"cat " + shared + "/file", "ermission denied"},
		{"rm -f " + shared + "/file; touch " + shared + "/mine && echo made", "made"},
		{"ps ax | grep -c '[s]leep 1000'", "0"},
		{fmt.Sprintf("kill -9 %d", app.PID), "o such process"},
	}.try(t, newJail(t, Link{Device: "eth0"}), other)
	if err := unix.Kill(app.PID, 0); err != nil {
		t.Errorf("the app: %v", err)
	}
	app.Kill()
	app.end(t)
}

// The numbers on disk that an app with a range can have are its own, however it
// is seen inside.
func TestIDsOfPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		inside, disk int
		alone        bool
		own, root    int // what is seen of the app's own on disk, and of root's; -1: nobody's
	}{
		"one number":              {33, 33, false, 33, 0},
		"root":                    {0, 61200, false, 0, 61200},
		"root, beyond the range":  {0, 100000, false, 0, -1},
		"with rights":             {0, 61200, true, 0, -1},
		"one number, with rights": {33, 33, true, 33, -1},
	} {
		t.Run(name, func(t *testing.T) {
			ids := swapped(testRange, c.inside, c.disk, c.alone)
			seen := func(disk int) int {
				for _, m := range ids {
					if disk >= m.ContainerID && disk < m.ContainerID+m.Size {
						return m.HostID + disk - m.ContainerID - testRange
					}
				}
				return -1
			}
			if own, root := seen(c.disk), seen(0); own != c.own || root != c.root {
				t.Errorf("own %d, root %d: %v", own, root, ids)
			}
			var all []int
			for _, m := range ids {
				for i := range m.Size {
					all = append(all, m.HostID+i)
				}
			}
			slices.Sort(all)
			if whole := len(all); len(slices.Compact(all)) != whole || all[0] < testRange || all[whole-1] >= testRange+RangeSize {
				t.Errorf("twice, or outside of the range: %v", ids)
			}
		})
	}
}

// What an app with a range is given comes to it as to any other: the emperor's
// protocol, a terminal, and no descriptor more.
func TestRangeIsGivenTheSame(t *testing.T) {
	nettest.NoLeaks(t)
	j := newJail(t, Link{Device: "eth0"})
	p := rangedPlan(true)
	p.Protocol = true
	p.Args = []string{"/bin/sh", "-c", `echo "channel $UWSGI_EMPEROR_FD"; ls /proc/self/fd | tr '\n' ' '; echo; exec sleep 1000`}
	app := startApp(t, j, Launch{Plan: p, Namespaces: fullNamespaces, Cgroup: newCgroup(t)})
	if channel, files := app.line(t), app.line(t); channel != "channel 4" || files != "0 1 2 3 4 " { // 3 is ls's own
		t.Errorf("%s; descriptors %s", channel, files)
	}
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	l := Launch{Plan: app.Beside([]string{"/bin/sh", "-c", "echo to the terminal >/dev/tty"}), Stdin: theirs}
	l.Plan.Terminal = true
	if l.Cgroup, err = app.Cgroup().Make("terminal"); err != nil {
		t.Fatal(err)
	}
	guest, err := startWith(t, l, app.Enter)
	if err != nil {
		t.Fatal(err)
	}
	if out, exit := guest.end(t); exit.Code != 0 {
		t.Errorf("%v: %s", exit, out)
	}
	b := make([]byte, 64)
	if n, err := ours.Read(b); err != nil || string(b[:n]) != "to the terminal\r\n" {
		t.Errorf("the terminal got %q, %v", b[:n], err)
	}
	if err := theirs.Close(); err != nil {
		t.Error(err)
	}
	app.Kill()
	app.end(t)
}
