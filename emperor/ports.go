package emperor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// hostPort is one port of the host's that is published. A socket holds it, bound
// and never listening: nobody else gets the port, and who comes by a way that is
// not published is refused.
type hostPort struct {
	Addr  netip.Addr `json:"addr"`
	Both  bool       `json:"both,omitempty"` // Addr is [::], and stands for 0.0.0.0 too
	Proto uint8      `json:"proto"`
	Port  uint16     `json:"port"`
}

func (h hostPort) String() string {
	proto := protoText(h.Proto)
	if h.Addr.IsUnspecified() {
		return fmt.Sprintf("%d/%s", h.Port, proto)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(h.Addr, h.Port), proto)
}

// protoText is the word for a protocol that ports are published of.
func protoText(proto uint8) string {
	if proto == unix.IPPROTO_UDP {
		return "udp"
	}
	return "tcp"
}

// portsOf are the host's ports of a line, for the families that it is published in.
func portsOf(p vassal.Publish, four, six bool) (ports []hostPort) {
	at := hostPort{Addr: p.Addr, Proto: p.Proto}
	if !p.Addr.IsValid() {
		at.Addr, at.Both = netip.IPv4Unspecified(), four && six
		if six {
			at.Addr = netip.IPv6Unspecified()
		}
	}
	for port := int(p.First); port <= int(p.Last); port++ {
		at.Port = uint16(port)
		ports = append(ports, at)
	}
	return ports
}

// takenError is a port that somebody else has, or an address that the host does
// not have (yet): that may pass.
type takenError struct {
	port hostPort
	err  error
	who  string // that has it; empty: not known
}

func (t *takenError) Error() string {
	switch {
	case errors.Is(t.err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("port %s: the host does not have the address %s; publish at one of its own, or without an address at all of them", t.port, t.port.Addr)
	case !errors.Is(t.err, unix.EADDRINUSE):
		return fmt.Sprintf("port %s of the host: %v", t.port, t.err)
	case t.who == "":
		return fmt.Sprintf("port %s of the host is taken; ss -tulpn shows by whom", t.port)
	}
	return fmt.Sprintf("port %s of the host is taken by %s; publish another, or stop that", t.port, t.who)
}

func (t *takenError) Unwrap() error { return t.err }

// waits says whether it may help to try again.
func (t *takenError) waits() bool {
	return errors.Is(t.err, unix.EADDRINUSE) || errors.Is(t.err, unix.EADDRNOTAVAIL)
}

// bindPort takes a port of the host's.
func bindPort(h hostPort) (*os.File, error) { return bindBeside(h, false) }

// bindBeside takes a port, also beside a socket that gives way.
func bindBeside(h hostPort, beside bool) (*os.File, error) {
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	if h.Addr.Is6() {
		domain = unix.AF_INET6
	}
	if h.Proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("port %s: %w", h, err)
	}
	f := os.NewFile(uintptr(fd), "port "+h.String())
	reuse := func(on int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on) }
	err = furnishPort(fd, h)
	if err == nil && beside {
		err = reuse(1)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("port %s: %w", h, err)
	}
	if err := unix.Bind(fd, sockaddr(h)); err != nil {
		_ = f.Close()
		return nil, &takenError{port: h, err: err}
	}
	if err := reuse(0); err != nil { // others would have it with us
		return nil, errors.Join(fmt.Errorf("port %s: %w", h, err), f.Close())
	}
	return f, nil
}

// giveWay lets a port be taken beside a socket that is about to be closed: the
// vault has another descriptor of it until it is told of the change.
func giveWay(f *os.File) {
	raw, err := f.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}
	// With an error the port is taken, and the bind says so.
}

// furnishPort sets what has to be set before the bind.
func furnishPort(fd int, h hostPort) error {
	if h.Addr.Is6() {
		only := 1
		if h.Both {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if err := shareNames(fd, h); err != nil {
		return err
	}
	if h.Proto == unix.IPPROTO_UDP {
		// Nobody reads what comes to it past the rules: none of it is kept.
		nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	}
	// Connections of before that are in TIME_WAIT are in nobody's way.
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

func sockaddr(h hostPort) unix.Sockaddr {
	if h.Addr.Is4() {
		return &unix.SockaddrInet4{Port: int(h.Port), Addr: h.Addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(h.Port), Addr: h.Addr.As16()}
}

// bindPorts takes the ports that are wanted and not held yet, all or none. Some may
// be beside those that give way.
func bindPorts(want []hostPort, held map[hostPort]*os.File, moved []hostPort) (map[hostPort]*os.File, error) {
	got := map[hostPort]*os.File{}
	lack := 0
	for _, h := range want {
		if held[h] == nil {
			lack++
		}
	}
	if lack == 0 {
		return got, nil
	}
	if open, most, err := usedFiles(); err != nil || open+lack+spareFiles > most {
		return nil, errors.Join(err, fmt.Errorf("%w: %d ports to publish, and %d of the %d descriptors that the emperor may open are in use; raise LimitNOFILE= of its unit (ulimit -n)", unix.EMFILE, lack, open, most))
	}
	for _, h := range want {
		if held[h] != nil {
			continue
		}
		f, err := bindBeside(h, slices.ContainsFunc(moved, func(m hostPort) bool { return m.Proto == h.Proto && m.Port == h.Port }))
		if err != nil {
			closePorts(got)
			return nil, err
		}
		got[h] = f
	}
	return got, nil
}

func closePorts(held map[hostPort]*os.File) {
	for _, f := range held {
		_ = f.Close()
	}
}
