package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// events are the kernel's announcements of changes that may concern us, read
// on the caller's own thread: a socket is of the network namespace in which it
// was made.
type events struct {
	base      string
	netfilter int // -1 where the kernel has no nfnetlink; iptables-legacy then
	route     int
	cancel    int // an eventfd, readable when the context ends
	stop      func() bool
	cancelled chan struct{} // closed when the context's end has been written
	buf       []byte
}

// subscribe asks for changes of nftables, routes, links and forwarding.
func subscribe(ctx context.Context, base string) (_ *events, err error) {
	e := &events{base: base, netfilter: -1, route: -1, cancel: -1, cancelled: make(chan struct{}), buf: make([]byte, 64<<10)}
	defer func() {
		if err != nil {
			e.closeSockets()
		}
	}()
	e.netfilter, err = netlinkSocket(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("subscribe to netfilter's changes: %w", err)
	}
	e.route, err = netlinkSocket(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes of routes: %w", err)
	}
	if e.cancel, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	e.stop = context.AfterFunc(ctx, func() {
		defer close(e.cancelled)
		one := binary.NativeEndian.AppendUint64(nil, 1)
		_, _ = unix.Write(e.cancel, one) // cannot fail: the counter is at 0 and the descriptor ours
	})
	return e, nil
}

func netlinkSocket(protocol int, groups ...uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, err
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, group := range groups {
		addr.Groups |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (e *events) close() {
	if !e.stop() {
		<-e.cancelled // the descriptor is still in use until then
	}
	e.closeSockets()
}

func (e *events) closeSockets() {
	for _, fd := range []int{e.netfilter, e.route, e.cancel} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// pause waits for d; false if the context ended.
func (e *events) pause(d time.Duration) bool {
	deadline := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(deadline) {
		ready, err := poll(left, e.cancel)
		if err == nil && ready {
			return false
		}
	}
	return true
}

// wait returns true as soon as something of interest changed, and false when d
// is over or the context ended.
func (e *events) wait(d time.Duration) (bool, error) {
	deadline := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(deadline) {
		ready, err := poll(left, e.netfilter, e.route, e.cancel)
		if err != nil {
			return false, err
		}
		if !ready {
			return false, nil
		}
		if ended, err := poll(0, e.cancel); err != nil || ended {
			return false, err
		}
		a, err := e.read(e.netfilter, e.rulesChanged)
		if err != nil {
			return false, err
		}
		b, err := e.read(e.route, routesChanged)
		if a || b || err != nil {
			return a || b, err
		}
	}
	return false, nil
}

// drain forgets what was announced up to now.
func (e *events) drain() error {
	_, errA := e.read(e.netfilter, func(*syscall.NetlinkMessage) bool { return false })
	_, errB := e.read(e.route, func(*syscall.NetlinkMessage) bool { return false })
	return errors.Join(errA, errB)
}

// poll waits until one of the descriptors can be read; negative ones are left
// out, which poll(2) does by itself.
func poll(d time.Duration, fds ...int) (bool, error) {
	list := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		list[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	// Rounded up, so that the last millisecond is not spent spinning.
	n, err := unix.Poll(list, int((d+time.Millisecond-1)/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// read takes all that a socket has and reports whether any of it is of
// interest. What was lost or cannot be read is.
func (e *events) read(fd int, interesting func(*syscall.NetlinkMessage) bool) (found bool, err error) {
	for fd >= 0 {
		n, _, err := unix.Recvfrom(fd, e.buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return found, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // we were too slow, or it was too much
			found = true
			continue
		case err != nil:
			return found, fmt.Errorf("read netlink: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(e.buf[:n])
		found = found || err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return interesting(&m) })
	}
	return found, nil
}

// rulesChanged is true for what may have taken something of ours away: any
// table or chain that goes, rules that go from the chains we jump from, and
// any change in our own chains (linux/netfilter/nf_tables.h).
func (e *events) rulesChanged(m *syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN:
		return true
	case unix.NFT_MSG_DELRULE:
		name := ruleChain(m.Data)
		return strings.HasPrefix(name, e.base) || slices.Contains([]string{"FORWARD", "INPUT", "OUTPUT", "PREROUTING", "POSTROUTING"}, name)
	case unix.NFT_MSG_NEWRULE:
		return strings.HasPrefix(ruleChain(m.Data), e.base)
	}
	return false
}

// ruleChain finds NFTA_RULE_CHAIN behind struct nfgenmsg.
func ruleChain(data []byte) string {
	const nfgenmsgLen, header = 4, 4
	for data = data[min(nfgenmsgLen, len(data)):]; len(data) >= header; {
		size := int(binary.NativeEndian.Uint16(data))
		if size < header || size > len(data) {
			break
		}
		if binary.NativeEndian.Uint16(data[2:]) == unix.NFTA_RULE_CHAIN {
			return strings.TrimRight(string(data[header:size]), "\x00")
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return ""
}

// routesChanged is true for links and addresses that come, go or change, default
// routes, local ones for one IPv6 address that go, such as ours for ::1, and the
// switches of forwarding. Other routes do not matter, and on a host that speaks
// BGP there are many (struct rtmsg in linux/rtnetlink.h).
func routesChanged(m *syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return false
		}
		bits, kind := m.Data[1], m.Data[7] // rtm_dst_len, rtm_type
		return bits == 0 || bits == 128 && kind == unix.RTN_LOCAL && m.Header.Type == unix.RTM_DELROUTE
	}
	return false
}
