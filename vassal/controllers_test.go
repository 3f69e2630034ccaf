package vassal

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// fakeTree is a v2 tree of plain files, with an emperor's cgroup and one of an
// instance below it, which has the controllers that are given.
func fakeTree(t *testing.T, controllers string) (own, instance Cgroup) {
	t.Helper()
	cgroups.TestMode = true // the library writes to any file
	t.Cleanup(func() { cgroups.TestMode = false })
	own = Cgroup(t.TempDir())
	instance = Cgroup(own.file("fiefdom-test"))
	for _, c := range []Cgroup{own, instance, Cgroup(instance.file("blog.1"))} {
		if err := os.MkdirAll(string(c), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": "", "cgroup.procs": "", "memory.events": "low 0\noom 0\noom_kill 0\noom_group_kill 0\n"} {
			fake(t, c, name, text)
		}
	}
	return own, instance
}

func fake(t *testing.T, c Cgroup, file, text string) {
	t.Helper()
	if err := os.WriteFile(c.file(file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, c Cgroup, file, want string) {
	t.Helper()
	b, err := os.ReadFile(c.file(file))
	if got := strings.TrimSpace(string(b)); err != nil || got != want {
		t.Errorf("%s is %q (%v), want %q", file, got, err, want)
	}
}

func findControllers(t *testing.T, own Cgroup) *Controllers {
	t.Helper()
	c, err := FindControllers(own, "fiefdom-test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// What is written into a v2 tree, whose controllers this machine may not have.
func TestBudgetInV2(t *testing.T) {
	own, instance := fakeTree(t, "cpu io memory pids")
	c := findControllers(t, own)
	c.Below(instance)
	for _, option := range limitNames {
		if where, ok := c.Where(option); where != "v2" || !ok {
			t.Errorf("%s is in %s, %v", option, where, ok)
		}
	}
	gen := Cgroup(instance.file("blog.1"))
	fake(t, gen, "cgroup.controllers", "") // nothing is on yet
	io := IOLimit{Device: "8:0", Name: "8:0", WriteBytes: 1000}
	b, err := c.Budget("blog.1", gen, Resources{CPU: 1500, Memory: 64 << 20, PIDs: 64, IO: []IOLimit{io}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Remove(t.Context())
	for _, at := range []Cgroup{own, instance} {
		has(t, at, "cgroup.subtree_control", "+io") // the last of them
	}
	has(t, gen, "cpu.max", "150000 100000")
	has(t, gen, "memory.max", strconv.Itoa(64<<20))
	has(t, gen, "memory.swap.max", "0")
	has(t, gen, "pids.max", "64")
	has(t, gen, "io.max", "8:0 rbps=max wbps=1000 riops=max wiops=max")

	if err := b.Set(Resources{Memory: 32 << 20, CPU: Unlimited}); err != nil {
		t.Fatal(err)
	}
	has(t, gen, "cpu.max", "max 100000")
	has(t, gen, "memory.max", strconv.Itoa(32<<20))
	has(t, gen, "pids.max", "max")
	has(t, gen, "io.max", "8:0 rbps=max wbps=max riops=max wiops=max")
	if err := b.Set(Resources{}); err != nil {
		t.Fatal(err)
	}
	has(t, gen, "memory.max", "max")
	has(t, gen, "memory.swap.max", "max")
}

// The kernel's change of memory.events is heard at once, and of several
// generations only by the one that it is about.
func TestShortOfMemoryInV2(t *testing.T) {
	nettest.NoLeaks(t)
	own, instance := fakeTree(t, "memory")
	c, err := FindControllers(own, "fiefdom-test", nil)
	if err != nil {
		t.Fatal(err)
	}
	gen := Cgroup(instance.file("blog.1"))
	killed := make(chan uint64, 10)
	b, err := c.Budget("blog.1", gen, Resources{}, func(n uint64) { killed <- n })
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Budget("other.1", instance, Resources{}, func(uint64) { t.Error("another was told") })
	if err != nil {
		t.Fatal(err)
	}
	fake(t, gen, "memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
	select {
	case n := <-killed:
		if n != 2 {
			t.Errorf("%d were killed, want 2", n)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody told")
	}
	if got := b.Kills(); got != 2 {
		t.Errorf("%d were killed in all", got)
	}
	if err := errors.Join(b.Remove(t.Context()), other.Remove(t.Context()), c.Close()); err != nil {
		t.Error(err)
	}
}

func TestLackingControllers(t *testing.T) {
	c := &Controllers{v2: map[string]bool{"cpu": true}, v1: map[string]string{"pids": "/x"}, why: map[string]string{"memory": "gone", "io": "gone"}}
	for name, test := range map[string]struct {
		r    Resources
		want string
	}{
		"nothing":       {Resources{}, ""},
		"no limit":      {Resources{Memory: Unlimited}, ""},
		"what is there": {Resources{CPU: 100, PIDs: 100}, ""},
		"memory":        {Resources{CPU: 100, Memory: 64 << 20}, "limit-memory = 64M: no memory controller: gone"},
		"disks":         {Resources{IO: []IOLimit{{Device: "8:0", Name: "/dev/sda", ReadBytes: 1}}}, "limit-io = /dev/sda rbps=1: no io controller: gone"},
	} {
		option, err := c.Lacks(&test.r)
		if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want || (option == "") != (err == nil) {
			t.Errorf("%s: %q, %v, want %q", name, option, err, test.want)
		}
		if _, err := c.Budget("x", "", test.r, nil); test.want != "" && err == nil {
			t.Errorf("%s: it was put in force", name)
		}
	}
	var none *Controllers
	if _, err := none.Lacks(&Resources{PIDs: 100}); err == nil {
		t.Error("a limit without anybody to keep it")
	}
}

// Without the v2 tree's, those of v1 trees are found; what is in neither is lacking.
func TestFindControllersWithoutV2(t *testing.T) {
	c := findControllers(t, "")
	for option, controller := range controllerOf {
		dir, err := ownLegacy(legacyName(controller))
		if err != nil {
			t.Fatal(err)
		}
		where, ok := c.Where(option)
		if ok != (dir != "") || ok && where != "v1" || !ok && !strings.Contains(where, "mount -t cgroup2") {
			t.Errorf("%s: %q, %v; its v1 tree is %q", option, where, ok, dir)
		}
	}
}

// An emperor that is alone in its cgroup makes room for controllers below it,
// and goes back in the end.
func TestEmperorMakesRoom(t *testing.T) {
	own, instance, controller := newRoom(t)
	c := &Controllers{name: "fiefdom-test", instance: instance}

	// Somebody else is there: nothing is moved, and the error names him.
	guest := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
	said, err := guest.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	stranger, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	stranger = strings.TrimSpace(stranger)
	err = c.switchOn(controller)
	pid, _ := strconv.Atoi(stranger)
	_ = unix.Kill(pid, unix.SIGKILL)
	_ = guest.Wait()
	if err == nil || !strings.Contains(err.Error(), "process "+stranger+" is in the cgroup") || c.leaf != "" {
		t.Fatalf("beside another's process: %v, %q", err, c.leaf)
	}

	// A child of the emperor's own moves with it.
	child := sleeper(t)
	if err := c.switchOn(controller); err != nil {
		t.Error(err)
	}
	if !slices.Contains(instance.words("cgroup.subtree_control"), controller) {
		t.Errorf("%s is not on", controller)
	}
	moved := Cgroup(c.leaf).words("cgroup.procs")
	if !slices.Contains(moved, strconv.Itoa(os.Getpid())) || !slices.Contains(moved, strconv.Itoa(child.Process.Pid)) {
		t.Errorf("in the leaf are %q", moved)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if err := errors.Join(unix.Rmdir(string(instance)), c.Close()); err != nil {
		t.Error(err)
	}
	has(t, own, "cgroup.procs", strconv.Itoa(os.Getpid()))
	if entries, _ := filepath.Glob(own.file("fiefdom-*")); len(entries) > 0 {
		t.Errorf("left: %q", entries)
	}
}

// newRoom puts this process into a cgroup of its own, with one for an instance
// below it, where a controller may be switched on.
func newRoom(t *testing.T) (own, instance Cgroup, controller string) {
	t.Helper()
	nettest.Root(t)
	root, err := OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(root.file("cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(string(all))) == 0 {
		nettest.NotHere(t, "the v2 tree has no controllers")
	}
	controller = strings.Fields(string(all))[0]
	if !slices.Contains(root.words("cgroup.subtree_control"), controller) {
		if err := os.WriteFile(root.file("cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			nettest.NotHere(t, "no controller can be switched on where the tests run: %v", err)
		}
		t.Cleanup(func() { _ = os.WriteFile(root.file("cgroup.subtree_control"), []byte("-"+controller), 0) })
	}
	own, err = root.Make("fiefdom-room-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = enter(string(root), os.Getpid()) })
	if err := enter(string(own), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	instance, err = own.Make("fiefdom-test")
	if err != nil {
		t.Fatal(err)
	}
	return own, instance, controller
}

// systemd's mark on the cgroup above says that this one is the emperor's leaf.
func TestDelegatedCgroup(t *testing.T) {
	nettest.Root(t)
	own, err := OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	unit, err := own.Make("fiefdom-unit-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := unit.Make("emperor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(enter(string(own), os.Getpid()), unit.removeTree()); err != nil {
			t.Error(err)
		}
	})
	if err := enter(string(leaf), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if got, err := DelegatedCgroup(); got != leaf || err != nil {
		t.Errorf("without a mark it is %s (%v)", got, err)
	}
	if err := unix.Setxattr(string(unit), "trusted.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := DelegatedCgroup(); got != unit || err != nil {
		t.Errorf("with systemd's mark it is %s (%v), want %s", got, err, unit)
	}
}
