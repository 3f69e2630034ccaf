package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
)

// RouterProcess is the word on the command line that makes our binary the router.
const RouterProcess = "router"

func (k *Keeper) start(theirs *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []*os.File{null, os.Stderr, os.Stderr, theirs}
	door, err := k.makeDoor()
	if err != nil {
		k.Log.Warn("without a door no emperor after this one can take the router over", "err", err)
	}
	if door != nil {
		defer door.Close()
		files = append(files, door)
	}
	// gofail: var routerDoorMade struct{}
	sys := &syscall.SysProcAttr{Setsid: true}
	if k.Cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(k.Cgroup.Fd())
	}
	args := []string{os.Args[0], RouterProcess}
	for _, n := range []int{k.UID, k.GID, os.Getpid(), max(1, k.Threads), int(k.BusyPoll), len(files) - 1 - controlFD} {
		args = append(args, strconv.Itoa(n))
	}
	return os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Dir: "/", Files: files, Sys: sys, Env: []string{}})
}

// makeDoor makes the door of a new router; nil where there is to be none.
func (k *Keeper) makeDoor() (*os.File, error) {
	if k.Door == "" {
		return nil, nil
	}
	if err := os.Remove(k.Door); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: k.Door, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(k.Door, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}
