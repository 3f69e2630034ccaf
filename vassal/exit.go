package vassal

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit is how an app ended.
type Exit struct {
	Code   int            // meaningful when Signal is 0
	Signal syscall.Signal // 0: it exited
	Err    error          // cleaning up after it failed: processes may be left

	OOMKills uint64 // processes of the generation that were killed for memory in all its life

	Followed bool // by its pidfile: how it ended is known to its parent alone
	Unknown  bool // as Followed, of the child of an emperor who is gone
}

// Well says that the app ended well, or that nobody knows.
func (e Exit) Well() bool { return !e.Followed && e.Signal == 0 && e.Code == 0 }

func (e Exit) String() string {
	if e.Followed {
		return "the process of its pidfile ended"
	}
	if e.Unknown {
		return "exit code unknown, it was started by an emperor who is gone"
	}
	if e.Signal != 0 {
		return "killed by " + unix.SignalName(e.Signal)
	}
	return "exit code " + strconv.Itoa(e.Code)
}

func (g *Generation) exitOf(s syscall.WaitStatus) Exit {
	if s.Signaled() {
		return Exit{Signal: s.Signal()}
	}
	if code := s.ExitStatus(); g.reaped && code > signalExit {
		return Exit{Signal: syscall.Signal(code - signalExit)}
	}
	return Exit{Code: s.ExitStatus()}
}
