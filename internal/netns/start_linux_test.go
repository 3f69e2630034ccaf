package netns_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

func TestStartIn(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	pidfd := -1
	holder := exec.Command("cat")
	holder.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS, PidFD: &pidfd,
	}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := holder.Wait(); err != nil {
			t.Error(err)
		}
		unix.Close(pidfd)
	})
	links := func(path string) string {
		t.Helper()
		var all []string
		for _, kind := range []string{"net", "uts", "mnt", "ipc"} {
			link, err := os.Readlink(path + "/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, link)
		}
		return strings.Join(all, "\n") + "\n"
	}
	before := links("/proc/thread-self")

	var out strings.Builder
	cmd := exec.Command("readlink", "/proc/self/ns/net", "/proc/self/ns/uts", "/proc/self/ns/mnt", "/proc/self/ns/ipc")
	cmd.Dir = "/"
	cmd.Stdout = &out
	if err := netns.StartIn(pidfd, unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWNS, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := links("/proc/" + strconv.Itoa(holder.Process.Pid)); out.String() != want {
		t.Errorf("ran in\n%swant\n%s", out.String(), want)
	}
	if after := links("/proc/thread-self"); after != before {
		t.Errorf("caller moved from\n%sto\n%s", before, after)
	}
	if err := netns.StartIn(pidfd, unix.CLONE_NEWNET, exec.Command("/does/not/exist")); err == nil {
		t.Error("a command that is not there was started")
	}
}
