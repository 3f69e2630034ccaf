package emperor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Instance is the directories and the lock of one emperor. Whoever holds the
// lock owns everything that is named after the instance.
type Instance struct {
	Name, Runtime, State string

	lock *os.File
}

// Lock makes the directories and takes the lock, which is held until Unlock
// or the end of the process. A second emperor gets an error with the first's pid.
func Lock(c *Config) (*Instance, error) {
	i := &Instance{Name: c.Instance, Runtime: c.Runtime, State: c.State}
	// The lasting one comes first: where it cannot be, nothing is left behind.
	if err := os.MkdirAll(i.State, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := i.makeRuntime(); err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	if err := i.checkOwn(); err != nil {
		return nil, err
	}
	f, err := i.takeLock()
	if err != nil {
		return nil, err
	}
	pid := fmt.Appendf(nil, "%d\n", os.Getpid())
	_, err = f.WriteAt(pid, 0)
	if err == nil {
		err = f.Truncate(int64(len(pid)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
	}
	i.lock = f
	return i, nil
}

// makeRuntime makes the runtime directory. Owners of vassals find instances by
// its parent and pass through it to the API's socket.
func (i *Instance) makeRuntime() error {
	if err := os.MkdirAll(filepath.Dir(i.Runtime), 0o755); err != nil {
		return err
	}
	return os.MkdirAll(i.Runtime, 0o711)
}

// checkOwn refuses a runtime directory that is not an instance's: its content
// goes with the emperor. An instance's is empty, or has a lock with a pid.
func (i *Instance) checkOwn() error {
	entries, err := os.ReadDir(i.Runtime)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	if len(entries) == 0 || len(entries) == 1 && entries[0].Name() == "lock" {
		return nil
	}
	b, err := os.ReadFile(i.Path("lock"))
	if _, perr := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || perr != nil {
		return fmt.Errorf("runtime directory %s: it holds other things, and everything in it would be removed; give runtime-dir a directory of its own", i.Runtime)
	}
	return nil
}

// lockGrace is for the children that an emperor was starting when he was killed:
// until their exec they have his lock.
const lockGrace = 2 * time.Second

// takeLock opens and locks the lock file. A lock on a file that the holder
// before us has just removed is worth nothing: then it tries again. So it does
// for a while if the holder is dead.
func (i *Instance) takeLock() (*os.File, error) {
	for began := time.Now(); ; {
		f, err := os.OpenFile(i.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		// gofail: var lockMade struct{}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
			}
			holder, _ := os.ReadFile(f.Name())
			pid, perr := strconv.Atoi(strings.TrimSpace(string(holder)))
			gone := perr == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
			if gone && time.Since(began) < lockGrace {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return nil, fmt.Errorf("instance %q runs already (pid %s); stop it, or write instance = NAME for a second one",
				i.Name, strings.TrimSpace(string(holder)))
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(f.Name()); err == nil && os.SameFile(ours, there) {
			return f, nil
		}
		if err := errors.Join(f.Close(), i.makeRuntime()); err != nil {
			return nil, err
		}
	}
}

// Path is a file in the runtime directory.
func (i *Instance) Path(elem ...string) string {
	return filepath.Join(append([]string{i.Runtime}, elem...)...)
}

// clear removes all of the runtime directory but the lock's file.
func (i *Instance) clear() error {
	entries, err := os.ReadDir(i.Runtime)
	errs := []error{err}
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(i.Path(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Leave gives the lock back and leaves what there is to the next emperor.
func (i *Instance) Leave() error { return i.lock.Close() }

// Unlock removes the runtime directory and gives the lock back. The lock's file
// is the last: a directory without it is not known as an instance's.
func (i *Instance) Unlock() error {
	err := i.clear()
	// gofail: var runtimeCleared struct{}
	err = errors.Join(err, os.RemoveAll(i.Runtime))
	// Shared by all instances: it stays while another one is there.
	_ = unix.Rmdir(filepath.Dir(i.Runtime))
	// gofail: var runtimeRemoved struct{}
	return errors.Join(err, i.lock.Close())
}
