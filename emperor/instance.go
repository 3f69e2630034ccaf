package emperor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	if err := i.makeRuntime(); err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	if err := os.MkdirAll(i.State, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := i.takeLock()
	if err != nil {
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
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

// takeLock opens and locks the lock file. A lock on a file that the holder
// before us has just removed is worth nothing: then it tries again.
func (i *Instance) takeLock() (*os.File, error) {
	for {
		f, err := os.OpenFile(i.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
			}
			holder, _ := os.ReadFile(f.Name())
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

// Unlock removes the runtime directory and gives the lock back.
func (i *Instance) Unlock() error {
	err := os.RemoveAll(i.Runtime)
	// Shared by all instances: it stays while another one is there.
	_ = unix.Rmdir(filepath.Dir(i.Runtime))
	return errors.Join(err, i.lock.Close())
}
