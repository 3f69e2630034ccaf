package vault

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/confine"
)

// Process is the word on the command line that makes our binary the vault.
const Process = "vault"

// The descriptors that a vault begins with.
const (
	listenFD = 3 // where emperors come
	firstFD  = 4 // the connection of the one who started it
)

// Main is the vault process. Its argument is the uid that it runs under. It
// returns when it has nothing to keep any more.
func Main(args []string) int {
	closeStrangers()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 1
	}
	if err := giveUpRights(args); err != nil {
		return 1
	}
	door, emperor := os.NewFile(listenFD, "vault.sock"), os.NewFile(firstFD, "emperor")
	l, err := net.FileListener(door)
	if err != nil {
		return 1
	}
	first, err := net.FileConn(emperor)
	if err != nil {
		return 1
	}
	if errors.Join(door.Close(), emperor.Close()) != nil { // there are duplicates of both
		return 1
	}
	b := &box{self: self, items: map[string]*item{}, lost: map[string]bool{}}
	for conn := first.(*net.UnixConn); b.serve(conn); {
		for _, i := range b.items {
			i.listen()
		}
		conn = accept(l.(*net.UnixListener))
		for _, i := range b.items {
			i.deafen()
		}
	}
	return 0
}

// closeStrangers closes what the emperor had from those who started him: they
// may wait for its end. What Go's runtime has opened is close-on-exec.
func closeStrangers() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= firstFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// giveUpRights leaves the process what it needs: its descriptors.
func giveUpRights(args []string) error {
	if len(args) != 1 {
		return errors.New("want UID; the emperor starts me")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return confine.Process(uid, uid, confine.Given)
}

// acceptRetry is the time between two attempts, where the kernel lacks something.
const acceptRetry = 100 * time.Millisecond

// accept waits for the next emperor: root, as the socket's mode says too.
// Whatever fails, what is held is worth more than an end.
func accept(l *net.UnixListener) *net.UnixConn {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			time.Sleep(acceptRetry)
			continue
		}
		raw, err := conn.SyscallConn()
		var cred *unix.Ucred
		if err == nil {
			err = raw.Control(func(fd uintptr) { cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		}
		if err == nil && cred != nil && cred.Uid == 0 {
			return conn
		}
		_ = conn.Close()
	}
}

// box is what the vault holds.
type box struct {
	self  int // the vault's own pidfd
	items map[string]*item
	lost  map[string]bool // keys of what did not fit in
}

// item is what is under one key.
type item struct {
	key   string
	names []string
	fds   []int
	hear  string
	heard []byte
	ear   *ear
}

// serve does what an emperor says until he is gone. It is false when there is
// nothing to keep for the next.
func (b *box) serve(conn *net.UnixConn) bool {
	defer conn.Close()
	in := newReader(conn)
	for {
		m, err := in.receive()
		if errors.Is(err, errCut) {
			b.drop(m.Key) // half of it is worth nothing
			b.lost[m.Key] = true
			continue
		}
		if err != nil {
			return len(b.items) > 0
		}
		switch m.Op {
		case opPut:
			b.drop(m.Key)
			b.items[m.Key] = &item{key: m.Key, names: m.Names, fds: m.fds, hear: m.Hear}
		case opDrop:
			closeAll(m.fds)
			b.drop(m.Key)
		case opCheck:
			closeAll(m.fds)
			if err := send(conn, &message{Op: opDone, Lost: len(b.lost)}); err != nil {
				return len(b.items) > 0
			}
		case opList:
			closeAll(m.fds)
			if err := b.list(conn); err != nil {
				return len(b.items) > 0
			}
		default:
			closeAll(m.fds)
		}
	}
}

func (b *box) drop(key string) {
	delete(b.lost, key)
	if i := b.items[key]; i != nil {
		closeAll(i.fds)
		delete(b.items, key)
	}
}

// list gives an emperor duplicates of everything. What was heard is told until
// somebody has put what he knows now.
func (b *box) list(conn *net.UnixConn) error {
	for _, i := range b.items {
		m := &message{Op: opItem, Key: i.key, Heard: i.heard, Names: i.names, fds: i.fds}
		err := send(conn, m)
		for errors.Is(err, unix.ETOOMANYREFS) { // so many are on their way; he is about to take them
			time.Sleep(time.Millisecond)
			err = send(conn, m)
		}
		if err != nil {
			return err
		}
	}
	return send(conn, &message{Op: opDone, Names: []string{selfName}, fds: []int{b.self}})
}

// selfName is the name of the vault's own pidfd.
const selfName = "vault"

// fd is the item's descriptor of a name; -1: there is none.
func (i *item) fd(name string) int {
	if n := slices.Index(i.names, name); n >= 0 {
		return i.fds[n]
	}
	return -1
}
