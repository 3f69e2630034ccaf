package emperor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func instanceConfig(t *testing.T) *Config {
	t.Helper()
	dir := t.TempDir()
	return &Config{Instance: "test", Runtime: filepath.Join(dir, "fiefdom", "test"), State: filepath.Join(dir, "state")}
}

func lock(t *testing.T, c *Config) *Instance {
	t.Helper()
	i, err := Lock(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestLock(t *testing.T) {
	c := instanceConfig(t)
	i := lock(t, c)
	if _, err := Lock(c); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) || !strings.Contains(err.Error(), "instance = NAME") {
		t.Errorf("a second one: %v", err)
	}
	write(t, i.Path("something"), "")
	if err := i.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(c.Runtime)); err == nil {
		t.Error("the runtime directory is left")
	}
	if err := lock(t, c).Unlock(); err != nil {
		t.Error(err)
	}
}

func TestLockOfAKilledEmperor(t *testing.T) {
	c := instanceConfig(t)
	if err := os.MkdirAll(c.Runtime, 0o711); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.Runtime, "lock"), "123456789012\n")
	write(t, filepath.Join(c.Runtime, APISocket), "")
	i := lock(t, c)
	if b, err := os.ReadFile(i.Path("lock")); err != nil || string(b) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("%q, %v", b, err)
	}
	if err := i.Unlock(); err != nil {
		t.Error(err)
	}
}

// A child that was just being cloned has the lock of a killed emperor until its
// exec: that is waited for.
func TestLockWaitsForTheClonedChild(t *testing.T) {
	c := instanceConfig(t)
	i := lock(t, c)
	write(t, i.Path("lock"), "123456789\n") // nobody's pid (pid_max)
	began, late := time.Now(), 50*time.Millisecond
	time.AfterFunc(late, func() { _ = i.Leave() })
	if err := lock(t, c).Unlock(); err != nil || time.Since(began) < late {
		t.Errorf("locked after %v: %v", time.Since(began), err)
	}
}

// A runtime directory of which the lock alone is left is still an instance's.
func TestLockOfAnEmperorKilledAtHisEnd(t *testing.T) {
	c := instanceConfig(t)
	i := lock(t, c)
	write(t, i.Path("something"), "")
	if err := errors.Join(i.clear(), i.Leave()); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(c.Runtime); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := lock(t, c).Unlock(); err != nil {
		t.Error(err)
	}
}

// What is in the runtime directory goes with the emperor: a mistaken
// runtime-dir must not cost anybody's files.
func TestLockRefusesOthersDirectories(t *testing.T) {
	for name, files := range map[string][]string{"files": {"precious"}, "with an empty lock": {"lock", "precious"}, "with another's lock": {"lock=host:5", "precious"}} {
		t.Run(name, func(t *testing.T) {
			c := instanceConfig(t)
			if err := os.MkdirAll(c.Runtime, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				f, text, _ := strings.Cut(f, "=")
				write(t, filepath.Join(c.Runtime, f), text)
			}
			if _, err := Lock(c); err == nil || !strings.Contains(err.Error(), "runtime-dir") {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(c.Runtime, "precious")); err != nil {
				t.Error(err)
			}
		})
	}
}

// Many try at once, while holders come and go: there is one at a time.
func TestLockRace(t *testing.T) {
	c := instanceConfig(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				i, err := Lock(c)
				if err != nil {
					continue
				}
				if !mu.TryLock() {
					t.Error("two have the lock")
				} else {
					got++
					mu.Unlock()
				}
				if err := i.Unlock(); err != nil && !strings.Contains(err.Error(), "directory not empty") {
					t.Error(err) // a neighbour may make its lock file while ours is removed
				}
			}
		})
	}
	wg.Wait()
	if got == 0 {
		t.Error("nobody ever had it")
	}
}

func TestLeftoverRouter(t *testing.T) {
	i := lock(t, instanceConfig(t))
	defer i.Unlock()
	router := nettest.Sleeper(t)
	if err := i.RecordRouter(router.Process.Pid); err != nil {
		t.Fatal(err)
	}
	write(t, i.Path("api.sock"), "")
	if err := os.MkdirAll(i.Path("out", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	if err := router.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("the router: %v", err)
	}
	entries, err := os.ReadDir(i.Runtime)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("%v, %v", entries, err)
	}
}

// A pid that came back as somebody else's is not the router.
func TestLeftoverRecords(t *testing.T) {
	for name, record := range map[string]string{"another start": "%d 1", "torn": "%d", "empty": "", "nonsense": "x y"} {
		t.Run(name, func(t *testing.T) {
			i := lock(t, instanceConfig(t))
			defer i.Unlock()
			bystander := nettest.Sleeper(t)
			if strings.Contains(record, "%d") {
				record = fmt.Sprintf(record, bystander.Process.Pid)
			}
			write(t, i.Path(routerRecord), record)
			if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), nil); err != nil {
				t.Fatal(err)
			}
			if now, err := startTime(bystander.Process.Pid); err != nil || now == "" {
				t.Errorf("the bystander: %v", err)
			}
		})
	}
}

func TestLeftoverCgroup(t *testing.T) {
	nettest.Root(t)
	nettest.Unified(t)
	i := lock(t, instanceConfig(t))
	i.Name = fmt.Sprintf("test-%d", os.Getpid())
	defer i.Unlock()
	c, err := i.MakeCgroup()
	if err != nil {
		t.Fatal(err)
	}
	child, err := c.Make("blog.1")
	if err != nil {
		t.Fatal(err)
	}
	left := nettest.Sleeper(t)
	write(t, filepath.Join(string(child), "cgroup.procs"), fmt.Sprint(left.Process.Pid))
	if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	if err := left.Wait(); err == nil {
		t.Error("it lives")
	}
	if _, err := os.Stat(string(c)); err == nil {
		t.Error("its cgroup is left")
	}
}

// A record that was cut short must not name everybody's cgroup.
func TestLeftoverCgroupOfOthers(t *testing.T) {
	i := lock(t, instanceConfig(t))
	defer i.Unlock()
	for _, record := range []string{"/sys/fs/cgroup", "", "/sys/fs/cgroup/fiefdom-other"} {
		write(t, i.Path(cgroupRecord), record)
		if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), nil); err == nil {
			t.Errorf("%q was taken", record)
		}
	}
}

func TestStartTime(t *testing.T) {
	one, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if two, err := startTime(os.Getpid()); err != nil || one != two {
		t.Errorf("%s, %s, %v", one, two, err)
	}
	// A command's name may look like the fields after it.
	odd := filepath.Join(t.TempDir(), ") R 1 2")
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(odd, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	began, err := startTime(cmd.Process.Pid)
	var n, ours int
	fmt.Sscan(began, &n)
	fmt.Sscan(one, &ours)
	if err != nil || n < ours {
		t.Errorf("%q, %v; ours is %s", began, err, one)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("of nobody")
	}
}
