package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/tuntap"
)

// protocol is the version of the control connection. A router and an emperor
// that do not have the same do not talk to each other. Only the length before
// each message, and hello, are the same in all versions.
const protocol = 2

// greetTime is how long somebody at the router's door may take to say that he is
// the emperor; others wait meanwhile.
const greetTime = 2 * time.Second

// converse makes w the emperor's connection, until it ends.
func (s *server) converse(w *wire) (over <-chan struct{}) {
	ended := make(chan struct{})
	s.wire.Store(w)
	go func() {
		defer close(ended)
		s.listen(w)
		s.wire.Store(nil)
		_ = w.conn.Close()
		s.router.Abandon()
		if len(s.router.Snapshot()) == 0 {
			s.quit() // it had no time to tell a network; nobody may know of us
		}
	}()
	return ended
}

// openDoor takes the next emperor: root, who says so. He replaces the one that
// is there, whose conversation ends first.
func (s *server) openDoor(l *net.UnixListener, over <-chan struct{}) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			s.log.Warn("the router's door", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		w := &wire{conn: c}
		who, err := greet(w)
		if err != nil {
			s.log.Warn("turned away at the router's door", "err", err)
			_ = c.Close()
			continue
		}
		if old := s.wire.Load(); old != nil {
			_ = old.conn.Close()
		}
		<-over
		s.router.Succeed(who.Pid, who.Uid)
		s.log.Info("another emperor has taken over", "pid", who.Pid)
		over = s.converse(w)
	}
}

// greet says hello, and waits for the answer.
func greet(w *wire) (*unix.Ucred, error) {
	who, err := peerOf(w.conn)
	if err != nil {
		return nil, err
	}
	if who.Uid != 0 {
		return nil, fmt.Errorf("uid %d (pid %d) is no emperor", who.Uid, who.Pid)
	}
	if err := w.conn.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return nil, err
	}
	if err := w.send(report{Hello: &hello{Protocol: protocol, PID: os.Getpid()}}); err != nil {
		return nil, err
	}
	var o order
	files, err := w.receive(&o)
	closeAll(files)
	switch {
	case err != nil:
		return nil, err
	case o.Take != protocol:
		return nil, fmt.Errorf("pid %d speaks version %d of our protocol; this is %d", who.Pid, o.Take, protocol)
	}
	return who, w.conn.SetDeadline(time.Time{})
}

// peerOf is who is at the other end of a connection (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var gerr error
	err = raw.Control(func(fd uintptr) { cred, gerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, gerr); err != nil {
		return nil, fmt.Errorf("ask who is at the other end: %w", err)
	}
	return cred, nil
}

// toldAtOnce is how many devices one message carries; the kernel allows 253
// descriptors (SCM_MAX_FD).
const toldAtOnce = 128

// tell tells the emperor all that the router has.
func (s *server) tell(w *wire) error {
	networks, err := s.router.Networks()
	if err != nil {
		return err
	}
	for _, n := range networks {
		err = errors.Join(err, s.tellNetwork(w, &n))
		n.Close()
	}
	for after := uint64(0); err == nil; {
		var list []tuntap.HandedDevice
		if list, err = s.router.Handed(after, toldAtOnce); err != nil || len(list) == 0 {
			break
		}
		after = list[len(list)-1].ID
		err = tellDevices(w, list)
	}
	if err != nil {
		return err
	}
	return w.send(report{Told: &s.made})
}

func (s *server) tellNetwork(w *wire, n *tuntap.NetworkState) error {
	state := networkState{Config: n.Config, Gateway: n.Gateway >= 0}
	fds := []int{n.Device, n.Listener}
	if stats := s.stats[n.Config.Name]; stats != nil {
		fd, err := descriptor(stats.file)
		if err != nil {
			return err
		}
		state.Stats, fds = true, append(fds, fd)
	}
	if state.Gateway {
		fds = append(fds, n.Gateway)
	}
	return w.send(report{Network: &state}, fds...)
}

func tellDevices(w *wire, list []tuntap.HandedDevice) error {
	devices, fds := make([]deviceState, len(list)), make([]int, len(list))
	for i, d := range list {
		devices[i] = deviceState{Network: d.Network, Vassal: d.Vassal, Registered: d.Registered}
		fds[i] = d.FD
	}
	err := w.send(report{Devices: devices}, fds...)
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return err
}
