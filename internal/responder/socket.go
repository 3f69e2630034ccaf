package responder

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Port is where resolvers are asked.
const Port = 53

// bufferSize is what waits at a UDP socket in bytes: some five thousand questions,
// those that come while a responder is started again and the tenth of a second of a flood.
const bufferSize = 4 << 20

// backlog is how many connections wait to be taken.
const backlog = 256

// Socket is where questions come in. It is bound to a device, so that packets of
// others with a vassal's address do not. It is no *os.File, since Go's poller
// would wake the emperor with every question.
type Socket struct {
	Network string // empty: the host asks, by the loopback device
	Addr    netip.AddrPort
	UDP     bool
	FD      int

	id uint64 // tells it from one that has its descriptor's number after it
}

// lastID is the newest socket's.
var lastID atomic.Uint64

// Name tells the sockets of an instance apart.
func (s *Socket) Name() string {
	kind := "tcp/"
	if s.UDP {
		kind = "udp/"
	}
	return kind + s.Network + "/" + s.Addr.Addr().String()
}

func (s *Socket) device() string {
	if s.Network == "" {
		return "lo"
	}
	return s.Network
}

func (s *Socket) family() int {
	if s.Addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (s *Socket) freeBind(fd int) error {
	if s.family() == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
}

func (s *Socket) sockaddr() unix.Sockaddr {
	if s.Addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(s.Addr.Port()), Addr: s.Addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(s.Addr.Port()), Addr: s.Addr.Addr().As16()}
}

// Open makes the socket, which takes questions from then on.
func (s *Socket) Open() error {
	kind := unix.SOCK_STREAM
	if s.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(s.family(), kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = s.bind(fd); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return fmt.Errorf("socket %s by device %s: %w", s.Name(), s.device(), err)
	}
	s.take(fd)
	return nil
}

func (s *Socket) take(fd int) { s.FD, s.id = fd, lastID.Add(1) }

func (s *Socket) bind(fd int) error {
	if err := unix.BindToDevice(fd, s.device()); err != nil {
		return err
	}
	if s.family() == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	// A bridge's address may be one that the kernel still looks for on the wire.
	if err := s.freeBind(fd); err != nil {
		return err
	}
	// A vassal may publish this port for all addresses of the host: the emperor's
	// own socket that holds it there says the same.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if s.UDP {
		// As root it may have more than the host gives everybody.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize); err != nil {
			return err
		}
		return unix.Bind(fd, s.sockaddr())
	}
	// Connections of a former one that are not over yet do not matter.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, s.sockaddr()); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// Take has a descriptor that a former emperor has left be this socket, if it is: it
// says so itself, and its port becomes the socket's.
func (s *Socket) Take(fd int) error {
	port, err := s.fits(fd)
	if err != nil {
		return err
	}
	s.Addr = netip.AddrPortFrom(s.Addr.Addr(), port)
	s.take(fd)
	return nil
}

// Fits says whether the socket is one yet: bound to the device that has the name now.
func (s *Socket) Fits() error {
	_, err := s.fits(s.FD)
	return err
}

func (s *Socket) fits(fd int) (port uint16, err error) {
	index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil {
		return 0, err
	}
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err != nil || index == 0 || device != s.device() {
		return 0, errors.Join(fmt.Errorf("it is of device %q", device), err)
	}
	has, err := unix.Getsockname(fd)
	var at netip.AddrPort
	switch a := has.(type) {
	case *unix.SockaddrInet4:
		at = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		at = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	if err != nil || at.Addr() != s.Addr.Addr() {
		return 0, errors.Join(fmt.Errorf("it is of address %s", at), err)
	}
	return at.Port(), nil
}

// Close closes it here; a responder goes on with its own.
func (s *Socket) Close() error { return unix.Close(s.FD) }
