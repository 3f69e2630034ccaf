package emperor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// Bounds of the connections to the sockets that everybody may connect to. Root may
// have all that it likes.
const (
	callerConns = 16  // of one uid
	apiClients  = 512 // of all others together: somebody may have 65,536 uids
	execClients = 128 // the same; each takes up to 100 KB while it asks
	acceptPause = 100 * time.Millisecond
)

// callers accepts the connections of those who may talk to the emperor, and bounds
// them by uid, so that no user keeps another, or root, out.
type callers struct {
	net.Listener
	most     int                        // connections of all who are not root
	turnAway func(*net.UnixConn) string // why nobody is at home for this one; empty: he is
	mu       sync.Mutex
	held     map[uint32]int // connections by uid
	others   int            // those that are not root's
}

func newCallers(l net.Listener, most int, turnAway func(*net.UnixConn) string) *callers {
	return &callers{Listener: l, most: most, turnAway: turnAway, held: map[uint32]int{}}
}

func (l *callers) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid := peerUID(c)
		if !l.take(uid) { // first: it costs the least
			_ = c.Close()
			continue
		}
		if u, ok := c.(*net.UnixConn); !ok || l.turnAway != nil && l.turnAway(u) != "" {
			l.give(uid)
			_ = c.Close()
			continue
		}
		return &slotConn{Conn: c, uid: uid, release: sync.OnceFunc(func() { l.give(uid) })}, nil
	}
}

func (l *callers) take(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 {
		if l.held[uid] >= callerConns || l.others >= l.most {
			return false
		}
		l.others++
	}
	l.held[uid]++
	return true
}

func (l *callers) give(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 {
		l.others--
	}
	if l.held[uid]--; l.held[uid] == 0 {
		delete(l.held, uid)
	}
}

type slotConn struct {
	net.Conn
	uid     uint32
	release func()
}

func (c *slotConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// peerUID is the uid of the process that connected; nobody's when unknown.
func peerUID(c net.Conn) uint32 {
	const nobody = 65534
	if known, ok := c.(*slotConn); ok {
		return known.uid
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nobody
	}
	cred, err := peerCredentials(u)
	if err != nil {
		return nobody
	}
	return cred.Uid
}

func peerCredentials(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var result error
	err = raw.Control(func(fd uintptr) { cred, result = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, result)
}

// turnAway says why the emperor does not listen to who connected: an app has the
// uid that it was given, in tyrant mode that of its ini's owner, and what he may
// do is not the app's to do. It is known by its network namespace, or by a
// namespace that it made itself as a user of its own. Who has ended meanwhile can
// be anybody.
func (e *Emperor) turnAway(c *net.UnixConn) (why string) {
	defer func() {
		if why != "" {
			e.Log.Debug("somebody knocked at the emperor's socket, and is not heard", "why", why)
		}
	}()
	cred, err := peerCredentials(c)
	if err != nil {
		return err.Error()
	}
	if cred.Pid == 0 {
		return "" // of a pid namespace around ours
	}
	process, err := peerProcess(c, cred)
	if err != nil {
		return fmt.Sprintf("who connected is gone: %v", err)
	}
	defer process.Close()
	at, err := vassal.WhereIs(process)
	switch {
	case errors.Is(err, os.ErrPermission) && os.Geteuid() != 0:
		return "" // an emperor that is not root knows no more than the uid
	case err != nil:
		return fmt.Sprintf("where who connected is: %v", err)
	}
	if j, ok := e.jails.Load(at.Network); ok {
		return fmt.Sprintf("process %d is in the jail of %s", cred.Pid, j.(*vassal.Jail).Name)
	}
	own, err := vassal.Here()
	if err != nil || at.Network != own.Network && at.User != own.User {
		return "it is in a network namespace and a user namespace of its own"
	}
	return ""
}

// peerProcess is the process that connected. A kernel before 6.5 does not hold it;
// then the pid has to do.
func peerProcess(c *net.UnixConn, cred *unix.Ucred) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var result error
	err = raw.Control(func(conn uintptr) { fd, result = unix.GetsockoptInt(int(conn), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	if errors.Is(result, unix.ENOPROTOOPT) {
		fd, result = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err := errors.Join(err, result); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "process"), nil
}
