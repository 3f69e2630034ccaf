package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/logfile"
	"fiefdom/internal/syslog"
	"fiefdom/vassal"
)

// emperorLog is where all that the emperor says goes, and what his vassals say
// without a log of their own. A terminal that is stopped or a disk that is full
// stops neither him nor them.
type emperorLog struct {
	*logfile.Queue                // the emperor's own lines
	vassals        *shared        // for vassals' lines: it may block
	syslog         *logfile.Queue // for the emperor's own lines too; nil: no

	undo []func()
}

// shared is a log that several queues write to, each in its turn.
type shared struct {
	mu sync.Mutex
	to io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(b)
}

func newEmperorLog(out io.Writer) *emperorLog {
	s := &shared{to: out}
	return &emperorLog{Queue: logfile.NewQueue(s, logfile.Notice), vassals: s}
}

// Write takes the emperor's own lines.
func (l *emperorLog) Write(b []byte) (int, error) {
	if l.syslog != nil {
		_, _ = l.syslog.Write(b)
	}
	return l.Queue.Write(b)
}

// toSyslog sends the emperor's own lines to syslog, too, if his ini says so,
// and returns what sends those of vassals whose inis say so.
func (l *emperorLog) toSyslog(c *emperor.Config) (func(vassal string) io.Writer, error) {
	target, err := c.Syslog()
	if err != nil {
		return nil, err
	}
	s := syslog.New(target)
	l.undo = append(l.undo, func() { _ = s.Close() })
	if c.Log.Syslog {
		l.syslog = logfile.NewQueue(s.Writer("fiefdom", os.Getpid()), logfile.Notice)
		l.undo = append(l.undo, func() { _ = l.syslog.Close(logEnd) })
	}
	// Under a name of ours, so that no vassal can pass for another program.
	return func(vassal string) io.Writer { return s.Writer("fiefdom/"+vassal, 0) }, nil
}

// logEnd is how long the log may take for what waits at the end.
const logEnd = time.Second

// flush writes what waits of the emperor's own lines.
func (l *emperorLog) flush() {
	l.Flush(logEnd)
	if l.syslog != nil {
		l.syslog.Flush(logEnd)
	}
}

// close writes what waits. Nothing may be written after it.
func (l *emperorLog) close() {
	stuck := l.Close(logEnd) != nil
	for _, f := range slices.Backward(l.undo) {
		if !stuck {
			f()
		}
	}
}

// to goes on in the file of logto. All that goes to standard error, of children
// too, goes there: the emperor's own descriptor is the file, for the last words
// of a program that breaks, and children write to a pipe that they hold open
// themselves, since after a rotation they would have the file of before.
func (l *emperorLog) to(c *emperor.Config, pipe string) error {
	if c.LogTo == "" {
		return nil
	}
	w, err := l.open(c)
	if err != nil {
		return fmt.Errorf("logto %s: %w", c.LogTo, err)
	}
	l.vassals.mu.Lock()
	l.vassals.to = w
	l.vassals.mu.Unlock()
	if err := l.childrenTo(pipe); err != nil {
		return fmt.Errorf("logto: %w", err)
	}
	return nil
}

func (l *emperorLog) open(c *emperor.Config) (io.Writer, error) {
	path := c.LogTo
	if rootsAlone(filepath.Dir(path)) { // nobody else has put a link or a device there
		if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return nil, err
			}
			l.undo = append(l.undo, func() { _ = f.Close() })
			return f, becomeStderr(f)
		}
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
	}
	plan := vassal.Plan{LogTo: path, LogUID: -1, Logging: c.Log}
	f, err := plan.OpenLog(c.Log.Truncate)
	if err != nil {
		return nil, err
	}
	complain := func(what string, err error) { fmt.Fprintf(l, "fiefdom: log %s: %s: %v\n", c.LogTo, what, err) }
	f.Trouble = func(err error) { complain("rotated files", err) }
	f.Opened = func(file *os.File) {
		if err := becomeStderr(file); err != nil {
			complain("standard error", err)
		}
	}
	f.TellOpened()
	f.Tidy()
	l.undo = append(l.undo, func() { _ = f.Close() })
	l.watch(&c.Log, f)
	return f, nil
}

// rootsAlone says whether nobody but root can put something into a folder, or
// another folder in its place.
func rootsAlone(folder string) bool {
	const others = 0o022
	for d := folder; ; d = filepath.Dir(d) {
		st, err := os.Lstat(d)
		if err != nil || !st.IsDir() {
			return false
		}
		owner, ok := st.Sys().(*syscall.Stat_t)
		shared := st.Mode()&others != 0 && (d == folder || st.Mode()&fs.ModeSticky == 0)
		if !ok || owner.Uid != 0 || shared {
			return false
		}
		if d == filepath.Dir(d) {
			return d == "/"
		}
	}
}

func becomeStderr(f *os.File) error { return unix.Dup3(int(f.Fd()), 2, unix.O_CLOEXEC) }

// watch obeys touch-logreopen and touch-logrotate until the end.
func (l *emperorLog) watch(o *vassal.Logging, f *logfile.File) {
	if len(o.TouchReopen)+len(o.TouchRotate) == 0 {
		return
	}
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		look := time.NewTicker(time.Second)
		defer look.Stop()
		emperor.WatchTouches(o, func(do func() error) error { return do() }, look.C, stop, func(rotate bool) {
			if rotate {
				f.Rotate()
			} else {
				f.Reopen()
			}
			l.Poke()
		})
	})
	l.undo = append(l.undo, func() { close(stop); watching.Wait() })
}

// childrenTo makes a pipe the standard error of children. They never wait for
// it, and it is there for those that outlive this emperor.
func (l *emperorLog) childrenTo(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make pipe %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open pipe %s: %w", path, err)
	}
	from := os.NewFile(uintptr(fd), path)
	// A file that was blocking when os got it stays as it is when a child gets it.
	if fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return errors.Join(fmt.Errorf("open pipe %s: %w", path, err), from.Close())
	}
	theirs, own := os.NewFile(uintptr(fd), path), os.Stderr
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, from.Close(), theirs.Close())
	}
	os.Stderr = theirs
	queue := logfile.NewQueue(l.vassals, logfile.Notice)
	var reading sync.WaitGroup
	reading.Go(func() { copyLines(queue, from) })
	l.undo = append(l.undo, func() {
		os.Stderr = own
		_ = from.SetReadDeadline(time.Now()) // wakes copyLines
		reading.Wait()
		if raw, err := from.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { copyLines(queue, leftInPipe(fd)) })
		}
		_ = queue.Close(logEnd)
		_, _ = theirs.Close(), from.Close()
	})
	return nil
}

// leftInPipe is what is in a pipe that does not block, which the poller cannot say.
type leftInPipe int

func (fd leftInPipe) Read(b []byte) (int, error) {
	n, err := unix.Read(int(fd), b)
	if n <= 0 {
		return 0, errors.Join(io.EOF, err)
	}
	return n, nil
}

// copyLines copies lines as wholes until an error, with those that are too long
// in pieces.
func copyLines(to io.Writer, from io.Reader) {
	buf, n := make([]byte, 64<<10), 0
	for {
		more, err := from.Read(buf[n:])
		n += more
		whole := bytes.LastIndexByte(buf[:n], '\n') + 1
		if whole == 0 && (n == len(buf) || err != nil) {
			whole = n
		}
		_, _ = to.Write(buf[:whole])
		n = copy(buf, buf[whole:n])
		if err != nil {
			return
		}
	}
}
