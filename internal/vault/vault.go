package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Vault is the emperor's side. Set the exported fields, then Open, and Run. Its
// methods are safe for concurrent use; those of a nil Vault do nothing.
type Vault struct {
	Path   string // of the socket where emperors come, in a directory that is root's
	Log    *slog.Logger
	UID    int                   // of the process; 0: stays ours
	Cgroup *os.File              // the directory that the process is cloned into; nil: ours
	Record func(pid int) error   // is told of a new process
	Refill func(context.Context) // puts everything again, into a process that is new

	mu      sync.Mutex
	conn    *net.UnixConn // nil: there is no process
	pidfd   int           // of the process
	filling bool          // the process is new, and does not have everything yet
	answers chan int      // to Check: how much was lost
	ended   bool
}

// Item is what a former emperor put under a key.
type Item struct {
	Key   string
	Note  []byte
	Files *Files
	Heard []byte // that was said to him since his end
}

// Bounds of the conversation: a process that takes longer hangs.
const (
	putTime  = 2 * time.Second
	listTime = 10 * time.Second
)

// Open takes over the process that a former emperor has left, and all that is
// in it. Without one it returns nothing.
func (v *Vault) Open() ([]Item, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: v.Path, Net: "unixpacket"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	items, self, err := contents(conn)
	if err != nil {
		for _, i := range items {
			i.Files.Close()
		}
		return nil, errors.Join(fmt.Errorf("vault: %w", err), conn.Close())
	}
	v.conn, v.pidfd = conn, self
	return items, nil
}

// contents are all items, and the process's pidfd.
func contents(conn *net.UnixConn) (items []Item, self int, err error) {
	if err := conn.SetDeadline(time.Now().Add(listTime)); err != nil {
		return nil, -1, err
	}
	if err := send(conn, &message{Op: opList}); err != nil {
		return nil, -1, err
	}
	in := newReader(conn)
	for {
		m, err := in.receive()
		switch {
		case err != nil:
			return items, -1, err
		case m.Op == opDone && len(m.fds) == 1:
			return items, m.fds[0], conn.SetDeadline(time.Time{})
		}
		i := Item{Key: m.Key, Heard: m.Heard, Files: &Files{names: m.Names, fds: m.fds}}
		if i.Note, err = readNote(i.Files.Take(noteName)); err != nil {
			i.Note = nil // whoever reads it says so
		}
		items = append(items, i)
	}
}

// Run keeps a process running until End, or until ctx is done, and then leaves
// it to the next emperor. One that came after another is filled again.
func (v *Vault) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { v.end(false) })
	defer stop()
	for said := false; ; {
		if !v.opened() {
			err := v.start()
			if err == nil {
				v.Refill(ctx)
				v.filled()
				v.Log.Warn("the vault was gone; filled another")
			} else if !said {
				v.Log.Error("no vault: the vassals of a killed emperor would not be adopted", "err", err)
			}
			said = err != nil
		}
		v.await()
		select {
		case <-time.After(time.Second): // not again and again
		case <-ctx.Done():
			return
		}
		if v.over() {
			return
		}
	}
}

func (v *Vault) over() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}

func (v *Vault) opened() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conn != nil
}

// Start starts the process, if Open has found none.
func (v *Vault) Start() error {
	if v.opened() {
		return nil
	}
	defer v.filled() // there is nothing yet
	return v.start()
}

func (v *Vault) filled() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.filling = false
}

func (v *Vault) start() error {
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	process, pidfd, err := v.launch(theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return errors.Join(err, ours.Close())
	}
	// gofail: var vaultCloned struct{}
	go func() { _, _ = process.Wait() }() // it outlives us, or is killed
	if v.Record != nil {
		if err := v.Record(process.Pid); err != nil { // it holds what it is given all the same
			v.Log.Warn("the vault is not on record", "err", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.conn, v.pidfd, v.filling = ours, pidfd, true
	if v.ended {
		v.part(true)
	}
	return nil
}

func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "vault"), os.NewFile(uintptr(fds[1]), "vault")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c.(*net.UnixConn), theirs, nil
}

// launch starts the process with the socket where the next emperors come.
func (v *Vault) launch(first *os.File) (process *os.Process, pidfd int, err error) {
	if err := os.Remove(v.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, -1, err
	}
	var config net.ListenConfig
	config.Control = func(_, _ string, c syscall.RawConn) error { // its mode comes before its name
		var result error
		err := c.Control(func(fd uintptr) { result = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, result)
	}
	l, err := config.Listen(context.Background(), "unixpacket", v.Path)
	if err != nil {
		return nil, -1, err
	}
	defer l.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	door, err := l.(*net.UnixListener).File()
	if err != nil {
		return nil, -1, err
	}
	defer door.Close()
	// gofail: var vaultSocketMade struct{}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, -1, err
	}
	defer null.Close()
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if v.Cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(v.Cgroup.Fd())
	}
	process, err = os.StartProcess("/proc/self/exe", []string{os.Args[0], Process, strconv.Itoa(v.UID)},
		&os.ProcAttr{Dir: "/", Files: []*os.File{null, null, null, door, first}, Sys: sys, Env: []string{}})
	return process, pidfd, err
}

// await waits until the process is gone. Of its own it says nothing; its answers
// go to Check.
func (v *Vault) await() {
	v.mu.Lock()
	conn, answers := v.conn, make(chan int, 1)
	v.answers = answers
	v.mu.Unlock()
	if conn == nil {
		return
	}
	for in := newReader(conn); ; {
		m, err := in.receive()
		if err != nil || m.Op != opDone || len(m.fds) > 0 {
			break
		}
		select {
		case answers <- m.Lost:
		default: // nobody waits any more
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn == conn {
		v.part(true) // it may be there, and not take what it is given
	}
}

// part parts from a process. The caller has v.mu.
func (v *Vault) part(kill bool) {
	if v.conn == nil {
		return
	}
	if kill {
		_ = unix.PidfdSendSignal(v.pidfd, unix.SIGKILL, nil, 0)
	}
	_ = unix.Close(v.pidfd)
	_ = v.conn.Close()
	v.conn = nil
}

// Put keeps files and a note under a key, in place of what was there. hear is
// the name of a datagram socket among them that is to be read while there is no
// emperor; empty: none. The files are closed here.
func (v *Vault) Put(key string, note any, files *Files, hear string) error {
	defer files.Close()
	text, err := json.Marshal(note)
	if err != nil || v == nil {
		return err
	}
	fd, err := newNote(text)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return v.say(&message{
		Op: opPut, Key: key, Hear: hear,
		Names: append([]string{noteName}, files.names...), fds: append([]int{fd}, files.fds...),
	})
}

// Check says why not all that was put is there for the next emperor. Run must be
// running.
func (v *Vault) Check() error {
	v.mu.Lock()
	conn, filling, answers := v.conn, v.filling, v.answers
	v.mu.Unlock()
	if conn == nil || filling || answers == nil {
		return errors.New("vault: it is being started")
	}
	select {
	case <-answers: // somebody has asked, and did not wait
	default:
	}
	if err := v.say(&message{Op: opCheck}); err != nil {
		return err
	}
	select {
	case lost := <-answers:
		if lost > 0 {
			return fmt.Errorf("vault: of %d things %w", lost, errCut)
		}
		return nil
	case <-time.After(putTime):
		return errors.New("vault: it does not answer")
	}
}

// Drop gives up what is under a key.
func (v *Vault) Drop(key string) error { return v.say(&message{Op: opDrop, Key: key}) }

// say sends a message; without a process it does nothing, since the next one is
// filled with everything.
func (v *Vault) say(m *message) error {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn == nil {
		return nil
	}
	err := v.conn.SetWriteDeadline(time.Now().Add(putTime))
	if err == nil {
		err = send(v.conn, m)
	}
	if err != nil { // Run hears of it, and starts another
		_ = v.conn.CloseRead()
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// End ends the process: there is nothing to keep for anybody.
func (v *Vault) End() { v.end(true) }

func (v *Vault) end(kill bool) {
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
	v.part(kill)
}
