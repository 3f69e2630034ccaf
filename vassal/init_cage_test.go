package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

const fullNamespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// confinedPlan is one of an app of /bin/sh under a full level.
func confinedPlan(level Level, script string) Plan {
	p := planOf(script)
	p.Mounts, p.Proc, p.Reaper, p.Bounded, p.CleanEnv = true, true, true, true, true
	p.UID, p.GID, p.SetGroups = 61200, 61200, true
	p.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	p.Confined = &Confined{Level: level}
	return p
}

// tries is what a confined app tries, line by line, with what must come of it.
type tries []struct{ script, want string }

// try runs each line in one app, and compares.
func (all tries) try(t *testing.T, j *Jail, p Plan) {
	t.Helper()
	var script strings.Builder
	for i, line := range all {
		fmt.Fprintf(&script, "echo '<%d>'; (%s) 2>&1\n", i, line.script)
	}
	p.Args = []string{"/bin/sh", "-c", script.String()}
	out, _ := startApp(t, j, Launch{Plan: p, Namespaces: fullNamespaces}).end(t)
	for i, line := range all {
		_, said, ok := strings.Cut(out, fmt.Sprintf("<%d>\n", i))
		said, _, _ = strings.Cut(said, fmt.Sprintf("<%d>\n", i+1))
		if said = strings.TrimSpace(said); !ok || !strings.Contains(said, line.want) || line.want == "" && said != "" {
			t.Errorf("%s: %q, want %q", line.script, said, line.want)
		}
	}
}

func TestConfinedAppSeesItsOwn(t *testing.T) {
	tries{
		{"id -u", "61200"},
		{"hostname", "test"},
		{"ls /tmp /var/tmp /dev/shm /run | grep -v : | grep .", ""},
		{"touch /tmp/x /var/tmp/x /dev/shm/x && echo made", "made"},
		{"ls /dev | sort | tr '\\n' ' '", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"},
		{"echo gone > /dev/null && head -c3 /dev/zero | od -An -tx1", "00 00 00"},
		{"ls -d /proc/[0-9]* | grep -c '/[0-9]\\{4,\\}$'", "0"},
		{"ls /sys/class/net | tr '\\n' ' '", "eth0 lo"},
		{"test -r /etc/passwd && test -x /bin/true && echo seen", "seen"},
		{"grep -E '^(NoNewPrivs|Seccomp|CapBnd)' /proc/self/status | tr '\\t\\n' '  '", "CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"},
		{"ulimit -c; ulimit -n", "0\n"},
	}.try(t, newJail(t, Link{Device: "eth0"}), confinedPlan(LevelDefault, ""))
}

func TestConfinedAppGetsNowhere(t *testing.T) {
	dir := sharedFolder(t)
	write := filepath.Join(dir, "file")
	if err := os.WriteFile(write, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(write, 0o666); err != nil {
		t.Fatal(err)
	}
	tries{
		{"echo x > " + write, "annot create"},
		{"cat " + write, "No such file"},
		{"ls /root", "ermission denied"},
		{"cat /etc/shadow", "ermission denied"},
		{"echo x > /proc/sys/kernel/hostname", "annot create"},
		{"echo x > /sys/kernel/profiling", "annot create"},
		{"cat /proc/kallsyms | head -c1", "ermission denied"},
		{"mount -t tmpfs none /tmp", "superuser"},
		{"unshare -U true", "permitted"},
		{"chroot / true", "permitted"},
		{"mknod /tmp/n c 1 3", "permitted"},
		{"hostname other", "you must be root"},
		{"kill -9 1; echo still", "still"},
		{"dmesg", "permitted"},
		{"cp /bin/true /run/x", "ermission denied"},
	}.try(t, newJail(t, Link{Device: "eth0"}), confinedPlan(LevelDefault, ""))
}

// sharedFolder is one that others than root may pass to, and not a private place.
func sharedFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "fiefdom-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPlacesOfTheApp(t *testing.T) {
	dir := sharedFolder(t)
	for _, name := range []string{"data", "code", "other", "unnamed", "hidden/app", "hidden/secret"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data", "other"} {
		if err := os.Chown(filepath.Join(dir, name), 61200, 61200); err != nil {
			t.Fatal(err)
		}
	}
	p := confinedPlan(LevelDefault, "")
	p.Confined.Writable = []string{dir + "/data"}
	p.Confined.Binds = []Bind{{Source: dir + "/other", Target: "/run/shared/other"}, {Source: dir + "/code", Target: "/tmp/code", ReadOnly: true}}
	p.Confined.Reads = []string{dir + "/code", dir + "/hidden/app"}
	p.Confined.Hidden = []string{dir + "/hidden"}
	p.Chdir = dir + "/hidden/app"
	tries{
		{"pwd; cat file", dir + "/hidden/app\nhidden/app"},
		{"echo new > " + dir + "/data/new && cat " + dir + "/data/new", "new"},
		{"mv " + dir + "/data/new " + dir + "/data/newer && echo moved", "moved"},
		{"cat " + dir + "/code/file /tmp/code/file", "code\ncode"},
		{"echo x > /tmp/code/file", "annot create"},
		{"cat /run/shared/other/file && touch /run/shared/other/new && echo made", "other\nmade"},
		{"cat " + dir + "/unnamed/file", "No such file"},
		{"ls " + dir + "/hidden/secret", "No such file"},
		{"touch " + dir + "/x", "ead-only"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
	if b, err := os.ReadFile(dir + "/data/newer"); err != nil || string(b) != "new\n" {
		t.Errorf("the host sees %q, %v", b, err)
	}
}

// A file of the host's /tmp that the ini names is seen, unless the app may write it:
// then it has left it there, such as its pidfile, and makes it anew in a /tmp of its own.
func TestNamedFileIsTheAppsOwn(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "fiefdom-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	script, pidfile := dir+"/script", dir+"-pidfile"
	for _, path := range []string{script, pidfile} {
		if err := os.WriteFile(path, []byte("of the host\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(pidfile) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(pidfile, 61200, 61200)); err != nil {
		t.Fatal(err)
	}
	p := confinedPlan(LevelDefault, "")
	p.Confined.Named = []string{script, pidfile}
	tries{
		{"cat " + script, "of the host"},
		{"echo own > " + pidfile + " && cat " + pidfile, "own"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
}

// A file that is named by a link, as those of certbot are, is found by that name.
func TestNamedLinkBelowAMask(t *testing.T) {
	dir := sharedFolder(t)
	for _, name := range []string{"live/shop", "archive/shop"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := dir + "/live/shop/cert.pem"
	if err := errors.Join(os.WriteFile(dir+"/archive/shop/cert1.pem", []byte("certificate\n"), 0o644), os.Symlink("../../archive/shop/cert1.pem", link)); err != nil {
		t.Fatal(err)
	}
	p := confinedPlan(LevelDefault, "")
	p.Confined.Hidden, p.Confined.Named = []string{dir + "/live", dir + "/archive"}, []string{link}
	tries{{"cat " + link, "certificate"}}.try(t, newJail(t, Link{Device: "eth0"}), p)
}

// What cannot be as the ini says refuses the start, and says why.
func TestCageRefuses(t *testing.T) {
	dir := sharedFolder(t)
	if err := os.Symlink("/etc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/private", 0o700); err != nil {
		t.Fatal(err)
	}
	j := newJail(t, Link{Device: "eth0"})
	for name, c := range map[string]struct {
		change func(*Plan)
		want   string
	}{
		"a place that is not there": {func(p *Plan) { p.Confined.Writable = []string{dir + "/no"} }, "writable " + dir + "/no: there is no such"},
		"a link":                    {func(p *Plan) { p.Confined.Writable = []string{dir + "/link/ssl"} }, "name /etc/ssl"},
		"nowhere to lie on":         {func(p *Plan) { p.Confined.Binds = []Bind{{Source: "/usr", Target: "/usr/no"}} }, "make it on the host"},
		"an owner's, of another": {func(p *Plan) {
			p.Confined.Owner, p.Confined.Writable = true, []string{dir + "/private/x"}
		}, "ermission denied"},
		"a file system that shows no others' ids": {func(p *Plan) {
			u := rangedPlan(false)
			p.Users, p.UID, p.GID = u.Users, u.UID, u.GID
			p.Confined.Binds = []Bind{{Source: "/dev/pts", Target: "/run/terminals"}}
		}, "put it on ext4, xfs, btrfs or tmpfs, or leave out userns = auto"},
		"a program that it does not see": {func(p *Plan) {
			p.Args = []string{dir + "/program"}
		}, "name its folder by chdir"},
		"a program that it may not execute": {func(p *Plan) {
			p.Confined.Named, p.Args = []string{dir + "/program"}, []string{dir + "/program"}
			p.Confined.Level = LevelStrict
			p.Confined.Writable = []string{dir}
		}, "name its folder by chdir"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(dir+"/program", []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			p := confinedPlan(LevelDefault, "true")
			c.change(&p)
			if _, err := j.Start(t.Context(), Launch{Plan: p, Namespaces: fullNamespaces, Output: os.Stdout}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A root that the ini brings is all that the app sees, with what is of its own and
// what the ini binds.
func TestRootOfAConfinedApp(t *testing.T) {
	dir := sharedFolder(t)
	root := filepath.Join(dir, "root")
	nettest.Rootfs(t, root, "ls", "cat", "touch", "id", "grep", "head")
	for _, name := range []string{"root/run", "root/sys", "root/var/tmp", "root/data", "root/bound", "host"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/host/file", []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]func(p *Plan){
		"rootfs": func(p *Plan) { p.Isolation = Isolation{Root: root, Rootfs: true} },
		"chroot": func(p *Plan) { p.Chroot = root },
	} {
		t.Run(name, func(t *testing.T) {
			p := confinedPlan(LevelDefault, "")
			own(&p)
			p.Confined.Writable = []string{"/data"}
			p.Confined.Binds = []Bind{{Source: dir + "/host", Target: "/bound", ReadOnly: true}, {Source: dir + "/host", Target: "/run/host"}}
			tries{
				{"ls / | grep -c -e usr -e home -e srv", "0"},
				{"cat /bound/file /run/host/file", "of the host\nof the host"},
				{"touch /bound/x", "ead-only"},
				{"touch /data/x /tmp/x /dev/shm/x /var/tmp/x && echo made", "made"},
				{"touch /bin/x", "ead-only"},
				{"echo gone > /dev/null; head -c4 /dev/zero | cat -v", "^@^@^@^@"},
				{"grep -c . /proc/self/status >/dev/null && echo seen", "seen"},
				{"echo x > /proc/sys/kernel/hostname", "annot create"},
				{"cat " + dir + "/host/file", "o such file"},
			}.try(t, newJail(t, Link{Device: "eth0"}), p)
		})
	}
}
