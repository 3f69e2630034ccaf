package vassal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/pidfd"
)

// followInterval is the time between two looks for a pidfile: nothing tells
// that a daemon is done with it.
const followInterval = 50 * time.Millisecond

// follow waits for the end of the process that took over from the one that was
// started: of the same cgroup, and named by the pidfile. A pidfile that names
// anybody else names nobody.
func (g *Generation) follow() {
	l := &g.launch
	if l.Pidfile == "" || g.cgroup == "" || g.base == nil {
		return
	}
	for deadline := time.Now().Add(l.Patience); ; {
		app, pid := g.named()
		if app == nil {
			left, err := g.cgroup.populated()
			if err != nil || !left || g.exit.Followed || time.Now().After(deadline) {
				return
			}
			time.Sleep(followInterval)
			continue
		}
		g.mu.Lock()
		if g.app != nil {
			_ = g.app.Close()
		}
		g.app = app
		g.mu.Unlock()
		g.exit = Exit{Followed: true}
		l.Followed(pid)
		_ = pidfd.Await(app)
	}
}

// named finds the process of the generation's cgroup that the pidfile names.
func (g *Generation) named() (*os.File, int) {
	number, err := g.base.readPidfile(g.launch.Pidfile)
	if err != nil {
		return nil, 0
	}
	members, err := g.cgroup.members()
	if err != nil {
		return nil, 0
	}
	for _, pid := range members {
		fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
		if err != nil {
			continue // gone
		}
		// That it is a member still, and lives after that was asked, proves that
		// the descriptor is a member's.
		if inner, err := innermostPID(fd); err == nil && inner == number {
			again, err := g.cgroup.members()
			if err == nil && slices.Contains(again, pid) && unix.PidfdSendSignal(fd, 0, nil, 0) == nil {
				return os.NewFile(uintptr(fd), "followed"), pid
			}
		}
		_ = unix.Close(fd)
	}
	return nil, 0
}

// readPidfile reads the number in a file of the jail, where anything may lie.
func (g *ground) readPidfile(path string) (int, error) {
	f, err := g.openIn(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return 0, errors.Join(err, errors.New("no regular file"))
	}
	const most = 32 // bytes: a number and some blanks
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(b))
	if len(words) == 0 {
		return 0, errors.New("empty")
	}
	return strconv.Atoi(words[0])
}

// members are the pids of the processes in c, as this pid namespace has them.
func (c Cgroup) members() ([]int, error) {
	b, err := slurp(c.file("cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		if pid > 0 { // 0: of a process that this namespace does not see
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// innermostPID is the pid of a pidfd as its process's own pid namespace has it
// (NSpid in proc(5)).
func innermostPID(pidfd int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if pids, ok := strings.CutPrefix(lines.Text(), "NSpid:"); ok {
			words := strings.Fields(pids)
			if len(words) > 0 {
				return strconv.Atoi(words[len(words)-1])
			}
		}
	}
	return 0, errors.New("pidfd without a pid")
}
