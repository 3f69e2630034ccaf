package vassal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// mountsAt mounts something of the host's elsewhere as long as the test goes on.
func mountsAt(t *testing.T, source, kind, target string, flags uintptr) {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// What is guarded is so by what it is: also where the host has mounted it elsewhere,
// for whoever names that.
func TestPlacesAreNothingGuarded(t *testing.T) {
	nettest.Root(t)
	dir := sharedFolder(t)
	if err := os.MkdirAll(dir+"/doors/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	mountsAt(t, dir+"/doors", "", dir+"/alias", unix.MS_BIND)
	mountsAt(t, "proc", "proc", dir+"/chroot/proc", 0)
	mountsAt(t, "/dev", "", dir+"/nodes", unix.MS_BIND)
	j := newJail(t, Link{Device: "eth0"})
	for name, c := range map[string]struct {
		change func(*Confined)
		want   string
	}{
		"itself":           {func(k *Confined) { k.Binds = []Bind{{Source: dir + "/doors", Target: "/tmp/x"}} }, "a part of " + dir + "/doors"},
		"by another name":  {func(k *Confined) { k.Binds = []Bind{{Source: dir + "/alias", Target: "/tmp/x"}} }, "a part of " + dir + "/doors"},
		"below that":       {func(k *Confined) { k.Binds = []Bind{{Source: dir + "/alias/inner", Target: "/tmp/x"}} }, "a part of " + dir + "/doors"},
		"to write":         {func(k *Confined) { k.Writable = []string{dir + "/alias/inner"} }, "a part of " + dir + "/doors"},
		"a /proc":          {func(k *Confined) { k.Binds = []Bind{{Source: dir + "/chroot/proc", Target: "/tmp/x"}} }, "what the kernel shows of the host"},
		"a part of a proc": {func(k *Confined) { k.Writable = []string{dir + "/chroot/proc/sys/kernel"} }, "what the kernel shows of the host"},
		"an owner's nodes": {func(k *Confined) { k.Owner, k.Binds = true, []Bind{{Source: dir + "/nodes/null", Target: "/tmp/x"}} }, "a part of /dev"},
	} {
		p := confinedPlan(LevelDefault, "true")
		p.Confined.Guarded = []string{dir + "/doors"}
		c.change(p.Confined)
		if _, err := j.Start(t.Context(), Launch{Plan: p, Namespaces: fullNamespaces, Output: os.Stdout}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// A folder that holds something which is hidden, or what the kernel shows of the
// host, is shown without that, wherever it is.
func TestPlacesShowNothingHidden(t *testing.T) {
	nettest.Root(t)
	dir := sharedFolder(t)
	for name, text := range map[string]string{"doors/door": "door", "secret": "secret", "plain/file": "plain"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, "all", name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "all", name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mountsAt(t, "proc", "proc", dir+"/all/chroot/proc", 0)
	root := filepath.Join(dir, "root")
	nettest.Rootfs(t, root, "ls", "cat", "wc")
	for _, name := range []string{"run", "sys", "bound"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		target string
		change func(*Plan)
	}{
		"in its place":  {dir + "/all", func(*Plan) {}},
		"elsewhere":     {"/run/elsewhere", func(*Plan) {}},
		"to write":      {dir + "/all", func(p *Plan) { p.Confined.Writable, p.Confined.Binds = []string{dir + "/all"}, nil }},
		"in a root":     {"/bound", func(p *Plan) { p.Isolation = Isolation{Root: root, Rootfs: true} }},
		"an app of 0's": {"/run/elsewhere", func(p *Plan) { p.UID, p.GID = 0, 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := confinedPlan(LevelDefault, "")
			p.Confined.Guarded, p.Confined.Hidden = []string{dir + "/all/doors"}, []string{dir + "/all/secret", dir + "/all/doors"}
			p.Confined.Binds = []Bind{{Source: dir + "/all", Target: c.target}}
			c.change(&p)
			tries{
				{"cat " + c.target + "/plain/file", "plain"},
				{"echo n$(cat " + c.target + "/doors/door " + c.target + "/secret 2>/dev/null | wc -c)e", "n0e"},
				{"echo n$(ls " + c.target + "/chroot/proc | wc -l)e", "n0e"},
			}.try(t, newJail(t, Link{Device: "eth0"}), p)
		})
	}
}
