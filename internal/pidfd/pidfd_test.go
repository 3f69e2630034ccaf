package pidfd

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child starts a shell that runs a script, and opens it.
func child(t *testing.T, script string) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = f.Close() })
	return cmd, f
}

// How a process ended is known while it is a zombie, and, where the kernel tells,
// after its parent has waited for it.
func TestHowProcessesEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		sig    syscall.Signal
		want   syscall.WaitStatus
	}{
		"code":   {"exit 7", 0, 7 << 8},
		"well":   {"exit 0", 0, 0},
		"signal": {"exec sleep 1000", unix.SIGUSR1, syscall.WaitStatus(unix.SIGUSR1)},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, f := child(t, tc.script)
			if tc.sig != 0 {
				if err := Signal(f, tc.sig, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := Await(f); err != nil {
				t.Fatal(err)
			}
			if got, err := Status(f); err != nil || got != tc.want {
				t.Errorf("of a zombie: %#x, %v; want %#x", got, err, tc.want)
			}
			_ = cmd.Wait()
			if got, err := Status(f); err == nil && got != tc.want || err != nil && !errors.Is(err, ErrUnknown) {
				t.Errorf("of one that was waited for: %#x, %v; want %#x", got, err, tc.want)
			}
			if err := Signal(f, unix.SIGTERM, 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("a signal to nobody: %v", err)
			}
		})
	}
}

// Of a process that lives nobody says how it ended, and who waits for it only so
// long gives up, whatever signals come meanwhile.
func TestProcessesThatLive(t *testing.T) {
	_, f := child(t, "exec sleep 1000")
	if got, err := Status(f); !errors.Is(err, ErrUnknown) {
		t.Errorf("of one that lives: %#x, %v", got, err)
	}
	if err := f.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := Await(f); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waited: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Signal(f, 0, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a signal by a closed descriptor: %v", err)
	}
}
