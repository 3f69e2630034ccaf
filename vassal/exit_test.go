package vassal

import (
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
