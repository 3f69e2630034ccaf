package vassal

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func TestCgroupEndsEverybody(t *testing.T) {
	c := newCgroup(t)
	child, err := c.Make("blog.1")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := child.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// A child that ignores TERM and has a session and a cgroup of its own.
	cmd := exec.Command("/bin/sh", "-c", `mkdir `+child.file("deep")+`; trap '' TERM HUP
(trap '' TERM HUP; exec setsid sleep 1000) & echo $! >`+child.file("deep/cgroup.procs")+`; echo $!; exec sleep 1000`)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(daemon, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if left, err := child.populated(); !left || err != nil {
		t.Fatalf("populated: %v, %v", left, err)
	}
	go func() { _ = cmd.Wait() }() // ends with the kill below
	if err := child.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 5*time.Second, "the daemon is gone", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		return n == 1
	})
	if _, err := os.Stat(string(child)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
}

func TestCgroupThatIsGone(t *testing.T) {
	c := newCgroup(t)
	gone := Cgroup(c.file("gone"))
	if err := gone.Kill(); err != nil {
		t.Error(err)
	}
	if left, err := gone.populated(); left || err != nil {
		t.Error(left, err)
	}
	if err := gone.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := Cgroup("").Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCgroupRemoveGivesUp(t *testing.T) {
	c := newCgroup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Remove(ctx); err != nil {
		t.Errorf("an empty one needs no time: %v", err)
	}
}

func TestCgroupOfNoTree(t *testing.T) {
	if c, err := Cgroup(t.TempDir()).Make("blog"); err == nil {
		t.Errorf("made %s where no cgroup tree is", c)
	}
}
