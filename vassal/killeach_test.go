package vassal

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// A crowd is killed to the last by an emperor who has fewer descriptors left than
// it has processes.
func TestKillEachWithFewDescriptors(t *testing.T) {
	const crowd, left = 150, 100
	var pids []string
	for range crowd {
		pids = append(pids, strconv.Itoa(nettest.Sleeper(t).Process.Pid))
	}
	dir := Cgroup(t.TempDir())
	if err := os.WriteFile(filepath.Join(string(dir), "cgroup.procs"), []byte(strings.Join(pids, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = 0
	for free := 0; free < left; low.Cur++ {
		if _, err := unix.FcntlInt(uintptr(low.Cur), unix.F_GETFD, 0); err != nil {
			free++
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	dir.killEach()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 20*time.Second, "nobody of them runs", func() bool {
		for _, pid := range pids {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err == nil && !strings.Contains(string(stat), ") Z ") {
				return false
			}
		}
		return true
	})
}
