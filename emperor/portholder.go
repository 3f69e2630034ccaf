package emperor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of sockets that have a port to themselves, as sock_diag(7) numbers
// them: a listener, a UDP socket without a peer, and one that is bound only
// (which kernels before 6.8 do not list).
const (
	stateClose  = 7
	stateListen = 10
	stateBound  = 13
)

// portSocket is a socket that has a port of the host's.
type portSocket struct {
	at      netip.AddrPort
	listens bool
	inode   uint32
}

// text is where the socket is, for who reads.
func (s portSocket) text() string {
	if s.listens {
		return "listens at " + s.at.String()
	}
	return "is bound to " + s.at.String()
}

// portSockets lists the sockets of a protocol that have ports, of this
// network namespace.
func portSockets(proto uint8) ([]portSocket, error) {
	var all []portSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		states := uint32(1<<stateListen | 1<<stateBound)
		if proto == unix.IPPROTO_UDP {
			states = 1<<stateClose | 1<<1 // connected ones have their port, too
		}
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddData(diagRequest{family, proto, states})
		answers, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
		if err != nil {
			return nil, fmt.Errorf("list the host's ports: %w", err)
		}
		for _, b := range answers {
			if s, ok := readPortSocket(b, proto); ok {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// diagRequest is the kernel's struct inet_diag_req_v2.
type diagRequest struct {
	family, proto uint8
	states        uint32
}

const (
	diagRequestLen = 56
	diagMessageLen = 72 // struct inet_diag_msg
)

func (r diagRequest) Len() int { return diagRequestLen }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestLen)
	b[0], b[1] = r.family, r.proto
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

func readPortSocket(b []byte, proto uint8) (s portSocket, ok bool) {
	if len(b) < diagMessageLen {
		return s, false
	}
	addr, _ := netip.AddrFromSlice(b[8:12])
	if b[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(b[8:24]))
	}
	s.at = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:]))
	s.listens = b[1] == stateListen || proto == unix.IPPROTO_UDP
	s.inode = binary.NativeEndian.Uint32(b[68:])
	return s, s.at.Port() != 0
}

// inWayOf says whether the socket keeps somebody from a port. One of IPv6's
// unspecified address may be of both families, and mostly is.
func (s portSocket) inWayOf(h hostPort) bool {
	a := s.at.Addr()
	switch {
	case s.at.Port() != h.Port:
		return false
	case a == h.Addr, h.Both, a == netip.IPv6Unspecified():
		return true
	}
	return (a.IsUnspecified() || h.Addr.IsUnspecified()) && a.Is4() == h.Addr.Is4()
}

// holderOf says who has a port of the host's: the program and its pid, or the
// other instance; empty if nobody can tell.
func (e *Emperor) holderOf(h hostPort) string {
	sockets, err := portSockets(h.Proto)
	if err != nil {
		e.Log.Debug("who has the port", "port", h.String(), "err", err)
		return ""
	}
	sockets = slices.DeleteFunc(sockets, func(s portSocket) bool { return !s.inWayOf(h) })
	for _, s := range sockets {
		if pid := pidOf(s.inode); pid != 0 {
			return e.Instance.holderText(pid, s)
		}
	}
	if len(sockets) > 0 {
		return "a program that cannot be found, whose socket " + sockets[0].text()
	}
	return ""
}

// holderText names a process that has a port.
func (i *Instance) holderText(pid int, s portSocket) string {
	switch name, record := i.instanceOf(pid); {
	case record == responderRecord:
		return fmt.Sprintf("the responder of instance %q of fiefdom (pid %d, %s)", name, pid, s.text())
	case name != "":
		return fmt.Sprintf("instance %q of fiefdom (pid %d)", name, pid)
	}
	return fmt.Sprintf("%s (pid %d, %s)", programOf(pid), pid, s.text())
}

// instanceOf is the instance whose emperor, vault or responder a process is, and the
// record that says so.
func (i *Instance) instanceOf(pid int) (name, record string) {
	base := filepath.Dir(i.Runtime)
	entries, err := os.ReadDir(base)
	if err != nil {
		return "", ""
	}
	for _, entry := range entries {
		for _, record := range []string{"lock", vaultRecord, responderRecord} {
			b, err := os.ReadFile(filepath.Join(base, entry.Name(), record))
			if word, _, _ := strings.Cut(strings.TrimSpace(string(b)), " "); err == nil && word == strconv.Itoa(pid) {
				return entry.Name(), record
			}
		}
	}
	return "", ""
}

// programOf is a process's program, as ps(1) would name it: ours, and others that
// start themselves by /proc/self/exe, by what they call themselves.
func programOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a program"
	}
	name := strings.TrimSpace(string(b))
	if name == "exe" {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
			first, _, _ := strings.Cut(string(line), "\x00")
			name = cmp.Or(filepath.Base(first), name)
		}
	}
	return printable([]byte(name))
}

// pidOf is a process that has a socket open; 0: none that we may look into.
func pidOf(inode uint32) int {
	want := fmt.Sprintf("socket:[%d]", inode)
	entries, err := os.ReadDir("/proc")
	if err != nil || inode == 0 {
		return 0
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		folder := "/proc/" + entry.Name() + "/fd/"
		files, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, f := range files {
			if to, err := os.Readlink(folder + f.Name()); err == nil && to == want {
				return pid
			}
		}
	}
	return 0
}

// PortHolder says which program has a port of an address of the host's, for UDP or
// TCP; empty if nobody can tell, or it is this one. Everywhere counts only who has it of
// all addresses.
func PortHolder(addr netip.Addr, port uint16, everywhere bool) string {
	own := ownSockets()
	for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		sockets, err := portSockets(proto)
		if err != nil {
			continue
		}
		for _, s := range sockets {
			if own[s.inode] || !s.inWayOf(hostPort{Addr: addr, Proto: proto, Port: port}) || everywhere && !s.at.Addr().IsUnspecified() {
				continue
			}
			if pid := pidOf(s.inode); pid != 0 {
				return fmt.Sprintf("%s (pid %d, %s)", programOf(pid), pid, s.text())
			}
		}
	}
	return ""
}
