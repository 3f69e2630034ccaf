package vassal

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatExitsSay(t *testing.T) {
	for _, tc := range []struct {
		exit Exit
		text string
		well bool
	}{
		{Exit{}, "exit code 0", true},
		{Exit{Code: 3}, "exit code 3", false},
		{Exit{Signal: unix.SIGSEGV}, "killed by SIGSEGV", false},
		{Exit{Followed: true}, "the process of its pidfile ended", false},
		{Exit{Unknown: true}, "exit code unknown, it was started by an emperor who is gone", true},
	} {
		if tc.exit.String() != tc.text || tc.exit.Well() != tc.well {
			t.Errorf("%+v: %q, well: %v", tc.exit, tc.exit, tc.exit.Well())
		}
	}
}

// A process that has not ended has no status, and that is no guess.
func TestStatusOfTheLiving(t *testing.T) {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if status, err := statusOf(pidfd); !errors.Is(err, errUnknown) {
		t.Errorf("status %v, %v", status, err)
	}
}
