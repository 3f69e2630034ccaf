package emperor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// What an instance leaves on record in its runtime directory, for the next
// emperor of its name.
const (
	cgroupRecord = "cgroup" // the path of the instance's cgroup
	routerRecord = "router" // pid and start time of the router
)

// EndLeftovers ends what a killed emperor of this instance has left:
// processes, by their cgroup, and the files of the runtime directory. It needs
// the lock. Its devices and namespaces go with their last descriptors.
func (i *Instance) EndLeftovers(ctx context.Context, log *slog.Logger) error {
	if b, err := os.ReadFile(i.Path(cgroupRecord)); err == nil {
		old := vassal.Cgroup(strings.TrimSpace(string(b)))
		log.Info("ending what a killed emperor left", "cgroup", string(old))
		if err := old.Remove(ctx); err != nil {
			return fmt.Errorf("end leftovers: %w", err)
		}
	}
	if err := endProcess(i.Path(routerRecord)); err != nil {
		return fmt.Errorf("end the leftover router: %w", err)
	}
	entries, err := os.ReadDir(i.Runtime)
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(i.Path(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// MakeCgroup makes the instance's cgroup below the emperor's own and records
// it before anything is cloned into it. Where there is no v2 tree it is empty,
// and the error says so.
func (i *Instance) MakeCgroup() (vassal.Cgroup, error) {
	own, err := vassal.OwnCgroup()
	if err != nil {
		return "", err
	}
	c, err := own.Make("fiefdom-" + i.Name)
	if err != nil {
		return "", err
	}
	return c, os.WriteFile(i.Path(cgroupRecord), []byte(c), 0o600)
}

// RecordRouter notes which process is the router.
func (i *Instance) RecordRouter(pid int) error {
	began, err := startTime(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(i.Path(routerRecord), fmt.Appendf(nil, "%d %s", pid, began), 0o600)
}

// endProcess kills a recorded process if it is still the one that was
// recorded: pids come back, start times do not.
func endProcess(record string) error {
	b, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var pid int
	var began string
	if _, serr := fmt.Sscan(string(b), &pid, &began); err != nil || serr != nil {
		return err // a torn record: the process was not started yet
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	if now, err := startTime(pid); err != nil || now != began {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	// A pidfd is readable when its process has ended (pidfd_open(2)).
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(10*time.Second/time.Millisecond))
	return err
}

// startTime is field 22 of /proc/PID/stat: clock ticks since boot.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields[19], nil
}
