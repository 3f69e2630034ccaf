package vassal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// own says which namespaces of a process are not this one's.
const own = `for n in cgroup ipc mnt net pid user uts; do echo "$n=$(readlink /proc/self/ns/$n)"; done`

// differ lists the namespaces in which an app is not where the test is.
func differ(t *testing.T, out string) string {
	t.Helper()
	var names []string
	for line := range strings.Lines(out) {
		name, link, ok := strings.Cut(strings.TrimSpace(line), "=")
		if mine, err := os.Readlink("/proc/thread-self/ns/" + name); ok && err == nil && mine != link {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

func TestStartOrderOfPhases(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	p := planOf("echo app")
	p.UID, p.GID = 61200, 61200
	var want strings.Builder
	phases := []Phase{AsVassal, AsAsap, PreJail, InJail, PostJail, AsRoot, AsUser}
	for _, ph := range phases {
		uid := 0
		if ph == AsUser {
			uid = 61200
		}
		fmt.Fprintf(&want, "%s %d\n", ph, uid)
		// Later ones first: the phase counts, not the place in the file.
		p.Hooks = append([]Hook{{Phase: ph, Action: "exec", Args: fmt.Sprintf("echo %s $(id -u)", ph)}}, p.Hooks...)
	}
	want.WriteString("app\n")
	if out, exit := startApp(t, j, Launch{Plan: p}).end(t); out != want.String() || exit.Code != 0 {
		t.Errorf("got %q, %v, want %q", out, exit, want.String())
	}
}

func TestStartPivotRoot(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	root := t.TempDir()
	nettest.Rootfs(t, root, "ls", "cat", "grep", "readlink")
	if err := os.Mkdir(filepath.Join(root, ".old"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := planOf(`ls -a /; ls /.old; grep -c . /proc/self/mountinfo; grep ' /proc ' /proc/self/mountinfo; pwd`)
	p.Mounts, p.UID, p.GID = true, 61200, 61200
	p.Isolation = Isolation{PivotRoot: root, PivotOld: filepath.Join(root, ".old")}
	p.Hooks = []Hook{
		{Phase: PostJail, Action: "mount", Args: "none " + root + " " + root + " bind"},
		{Phase: AsRoot, Action: "exec", Args: "ls /.old/proc/self/ns >/tmp/seen"}, // there is no /dev here
		{Phase: AsRoot, Action: "mount", Args: "proc none /proc nodev hidepid=2"},
		{Phase: AsRoot, Action: "umount", Args: "/.old rec,detach"},
	}
	before := mounts(t)
	out, exit := startApp(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWNS}).end(t)
	if exit.Code != 0 || !strings.HasPrefix(out, ".\n..\n.old\nbin\ndev\n") {
		t.Errorf("got %s, %v", out, exit)
	}
	if !strings.Contains(out, "\n2\n") || !strings.Contains(out, "nodev") || !strings.Contains(out, "hidepid=invisible") || !strings.HasSuffix(out, "\n/\n") {
		t.Errorf("want two mounts, / and /proc, and the cwd /: %s", out)
	}
	if seen, err := os.ReadFile(filepath.Join(root, "tmp/seen")); err != nil || !strings.Contains(string(seen), "mnt") {
		t.Errorf("the hook saw %q of the old root, %v", seen, err)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts of the machine changed:\n%s", nettest.Diff(before, after))
	}
}

// rootPlan is an app in a root of namespace with two kept mounts, a folder from
// elsewhere and one below the root, and a third that is not kept.
func rootPlan(t *testing.T) (p Plan, root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "root")
	nettest.Rootfs(t, root, "ls", "cat", "readlink", "hostname", "grep", "id")
	for name, text := range map[string]string{
		"data/file": "from data\n", "root/kept/.keep": "", "root/other/.keep": "", "root/inside/.keep": "", "root/etc/resolv.conf": "the root's\n", "resolv": "ours\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A link of the root's owner stays in the root, wherever it points to.
	if err := os.Symlink("/inside", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	p = planOf(`hostname; cat /link/file /inside/file /kept/file /other/file /etc/resolv.conf; echo "pid $$"; grep -c . /proc/self/mountinfo; ` + own)
	p.Env = []string{"PATH=/bin"}
	p.Mounts, p.Proc, p.Reaper, p.Resolv = true, true, true, filepath.Join(dir, "resolv")
	p.Hooks = []Hook{
		{Phase: PreJail, Action: "mount", Args: "tmpfs none " + root + "/kept"},
		{Phase: PreJail, Action: "write", Args: root + "/kept/file kept\n"},
		{Phase: PreJail, Action: "mount", Args: "tmpfs none " + root + "/other"},
		{Phase: PreJail, Action: "write", Args: root + "/other/file other"},
		{Phase: InJail, Action: "write", Args: "/tmp/in-jail x"},
	}
	p.Isolation = Isolation{Root: root, Hostname: "walled", Keep: []Keep{{Source: filepath.Join(dir, "data"), Target: "/link"}, {Source: root + "/kept"}}}
	return p, root
}

func TestStartNamespaceRoot(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	for name, users := range map[string]uintptr{"as root": 0, "in a user namespace": unix.CLONE_NEWUSER} {
		t.Run(name, func(t *testing.T) {
			p, root := rootPlan(t)
			before := mounts(t)
			l := Launch{Plan: p, Namespaces: p.Isolation.Namespaces() | users}
			if users != 0 {
				// What the host has mounted below the root cannot be parted from it there: no hooks that mount.
				l.Plan.Hooks = l.Plan.Hooks[4:]
				l.Plan.Isolation.Keep = l.Plan.Isolation.Keep[:1]
			}
			out, _ := startApp(t, j, l).end(t)
			if !strings.HasPrefix(out, "walled\nfrom data\nfrom data\n") || strings.Contains(out, "other\n") || !strings.Contains(out, "\nours\npid ") {
				t.Errorf("got %s", out)
			}
			if users == 0 && !strings.Contains(out, "\nkept\n") || strings.Contains(out, "\nthe root's\n") {
				t.Errorf("got %s", out)
			}
			wantMounts, differing := 5, "ipc mnt net pid uts" // root, kept, inside, resolv.conf, proc
			if users != 0 {
				wantMounts, differing = 4, "ipc mnt net pid user uts"
			}
			if !strings.Contains(out, fmt.Sprintf("\n%d\n", wantMounts)) {
				t.Errorf("want %d mounts: %s", wantMounts, out)
			}
			if got := differ(t, out); got != differing {
				t.Errorf("own namespaces are %q, want %q", got, differing)
			}
			if _, err := os.Stat(filepath.Join(root, "tmp/in-jail")); err != nil {
				t.Errorf("the hook in-jail was not in the root: %v", err)
			}
			if after := mounts(t); after != before {
				t.Errorf("mounts of the machine changed:\n%s", nettest.Diff(before, after))
			}
		})
	}
}

// A step that fails says which, and nothing of the attempt is left.
func TestIsolationThatFails(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	root := t.TempDir()
	for name, tc := range map[string]struct {
		iso  Isolation
		want string
	}{
		"no such root":      {Isolation{Root: "/no/such/root"}, "namespace /no/such/root: copy the mount"},
		"root without proc": {Isolation{Root: root}, "make the folder proc in the root"},
		"no target":         {Isolation{Root: root, Keep: []Keep{{"/tmp", "/not/there"}}}, "keep /tmp at /not/there"},
		"no mount":          {Isolation{PivotRoot: root, PivotOld: root + "/old"}, "pivot_root"},
		"no cgroup":         {Isolation{Cgroups: []string{root + "/group"}}, "it is in no cgroup file system"},
		"no controller":     {Isolation{Cgroups: nil, CgroupOpts: []string{"no.such=1"}}, "no cgroup of the ini has the file no.such"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf("exit 0")
			p.Mounts, p.Isolation = true, tc.iso
			_, err := tryStart(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWNS})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("left in the root: %v, %v", entries, err)
	}
}

func TestStartLimits(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	p := planOf(`cat /proc/self/limits; cut -d' ' -f19 /proc/self/stat`)
	p.UID, p.GID, p.Bounded = 61200, 61200, true
	p.Limits = Limits{Memory: 256, Processes: 77, Files: 99, Nice: 19}
	out, exit := startApp(t, j, Launch{Plan: p}).end(t)
	if exit.Code != 0 || !strings.HasSuffix(out, "\n19\n") {
		t.Errorf("%v: %s", exit, out)
	}
	for _, want := range []string{"address space 268435456 268435456", "processes 77 77", "open files 99 99"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	// Nobody gets more than his user has.
	for name, l := range map[string]Limits{"prio": {Nice: -5}, "max-fd": {Files: 1 << 30}} {
		p.Limits = l
		if _, err := tryStart(t, j, Launch{Plan: p}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestStartBound(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	const netRaw, setpcapToo = "0000000000002000", "0000000000002100"
	for name, tc := range map[string]struct {
		change func(*Plan)
		want   map[string]string
	}{
		"root":      {func(*Plan) {}, map[string]string{"CapBnd": setpcapToo, "CapEff": setpcapToo}},
		"with cap":  {func(p *Plan) { p.KeepCaps, p.Caps, p.UID, p.GID = true, []string{"net_raw"}, 61200, 61200 }, map[string]string{"CapBnd": netRaw, "CapEff": netRaw}},
		"own uid":   {func(p *Plan) { p.UID, p.GID = 61200, 61200 }, map[string]string{"CapBnd": setpcapToo, "CapEff": "0000000000000000"}},
		"all of it": {func(p *Plan) { p.Bounded = true }, map[string]string{"CapBnd": "0000000000000000", "NoNewPrivs": "1"}},
		"the hooks'": {func(p *Plan) {
			p.Hooks = []Hook{{Phase: AsVassal, Action: "exec", Args: "cat /proc/self/status; exit 7"}}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf("cat /proc/self/status")
			p.Bound, p.BoundSet = []string{"net_raw"}, true
			tc.change(&p)
			s, err := tryStart(t, j, Launch{Plan: p})
			if tc.want == nil {
				b := make([]byte, 8192)
				n, _ := s.output.Read(b)
				if got := status(string(b[:n]), "CapEff"); err == nil || got != setpcapToo {
					t.Errorf("hooks have %s, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			out, _ := s.end(t)
			for field, want := range tc.want {
				if got := status(out, field); got != want {
					t.Errorf("%s is %s, want %s", field, got, want)
				}
			}
		})
	}
}
