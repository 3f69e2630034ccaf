package tuntap

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

var errCredentials = errors.New("it did not begin with its credentials, which this network asks for")

// askCredentials has the kernel tell who writes to a new connection, until that
// is known.
func (p *peer) askCredentials(fd int) error {
	if p.emperor || !p.net.policy.Load().cfg.Credentials {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return fmt.Errorf("ask for its credentials: %w", err)
	}
	p.unproved = true
	return nil
}

// readCredentials reads what a uWSGI device with tuntap-use-credentials begins
// with, or closes the peer. The ids are told, and decide nothing: root can send
// any (unix(7)).
func (r *Router) readCredentials(p *peer) {
	fd := p.stream.conn.fd
	ids, err := receiveCredentials(fd)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 0)
	}
	if err != nil {
		r.closePeer(p, err)
		return
	}
	p.unproved = false
	p.uid, p.gid, p.pid = ids.Uid, ids.Gid, ids.Pid
	p.publish()
}

// receiveCredentials reads the greeting, and not a byte more. The control buffer
// has no room for descriptors.
func receiveCredentials(fd int) (*unix.Ucred, error) {
	text, control := make([]byte, len(hello)), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, size, flags, _, err := unix.Recvmsg(fd, text, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err != nil:
		return nil, err
	case flags&unix.MSG_CTRUNC != 0:
		return nil, errDescriptors
	case n == 0:
		return nil, errPeerClosed
	case string(text[:n]) != hello:
		return nil, errCredentials
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 {
		return nil, errCredentials
	}
	return unix.ParseUnixCredentials(&messages[0])
}

func setCredentials(n *NetworkOptions, p ini.Pair) error {
	switch p.Value {
	case "", "on", "off", "true", "false", "yes", "no", "1", "0":
	default: // uWSGI calls a function of that name
		return fmt.Errorf("%s = %s: want true or false; no code is loaded into the router", p.Key, p.Value)
	}
	n.Credentials = ini.ParseBool(p.Value)
	return nil
}
