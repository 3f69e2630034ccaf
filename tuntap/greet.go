package tuntap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

// Greeting is what a device says to a router of uWSGI's kind before its first packet.
type Greeting struct {
	Rules       []DeviceRule
	Credentials bool // the vassal's ids come first: the router asks for them
	UID, GID    int  // the vassal's
}

// greetTimeout bounds the wait for a router that listens and does nothing else.
const greetTimeout = 5 * time.Second

// Dial connects to a router that takes frames.
func Dial(socket string) (*net.UnixConn, error) {
	conn, err := net.DialTimeout("unix", socket, greetTimeout)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// Send sends the greeting, with pid for the process that it is about: uWSGI's
// twelve bytes with credentials, then the rule block. Only root may speak for
// another process (unix(7)).
func (g Greeting) Send(conn *net.UnixConn, pid int) error {
	if err := conn.SetWriteDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	if g.Credentials {
		ids := unix.UnixCredentials(&unix.Ucred{Pid: int32(pid), Uid: uint32(g.UID), Gid: uint32(g.GID)})
		if _, _, err := conn.WriteMsgUnix([]byte(hello), ids, nil); err != nil {
			return fmt.Errorf("send credentials: %w", err)
		}
	}
	block, err := encodeRuleBlock(g.Rules)
	if err != nil || len(block) == 0 {
		return err
	}
	frame := make([]byte, frameHeader, frameHeader+len(block))
	putHeader(frame, kindRules, len(block))
	if _, err := conn.Write(append(frame, block...)); err != nil {
		return fmt.Errorf("send the device's rules: %w", err)
	}
	return nil
}

// Check says whether a router of uWSGI's kind can be told the greeting.
func (g Greeting) Check() error {
	_, err := encodeRuleBlock(g.Rules)
	return err
}

// encodeRuleBlock writes rules as parseRuleBlock reads them. What the block has
// no words for is an error: a rule that says less would let more through.
func encodeRuleBlock(rules []DeviceRule) ([]byte, error) {
	var b []byte
	for _, r := range rules {
		if r.Rule.Action > firewall.Deny {
			return nil, fmt.Errorf("%s:%d: a foreign router knows allow and deny, not %s", r.Rule.File, r.Rule.Line, r.Rule.Action)
		}
		one := [blockRuleSize]byte{}
		if r.Direction == firewall.Out {
			one[0] = 1
		}
		one[17] = byte(r.Rule.Action)
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", r.Rule.File, r.Rule.Line, err)
		}
		if r.Routes() {
			target := r.Target.Addr().As4()
			one[17] = blockRoute
			copy(one[18:], target[:])
			binary.BigEndian.PutUint16(one[22:], r.Target.Port())
		}
		for i, p := range []netip.Prefix{r.Rule.Src, r.Rule.Dst} {
			addr, mask, err := blockPrefix(p)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", r.Rule.File, r.Rule.Line, err)
			}
			binary.NativeEndian.PutUint32(one[1+8*i:], addr)
			binary.NativeEndian.PutUint32(one[5+8*i:], mask)
		}
		b = append(b, one[:]...)
	}
	if len(b) > framePayload {
		return nil, fmt.Errorf("%d rules of a device; a foreign router takes %d", len(rules), framePayload/blockRuleSize)
	}
	return b, nil
}

// blockPrefix is a prefix in a rule block, where address zero means any.
func blockPrefix(p netip.Prefix) (addr, mask uint32, err error) {
	switch {
	case !p.IsValid():
		return 0, 0, nil
	case p.Addr().Is6():
		return 0, 0, fmt.Errorf("%s: a foreign router takes rules for IPv4 only", p)
	}
	addr = v4bits(p.Masked().Addr())
	if p.Bits() == 0 {
		return 0, 0, nil
	}
	if addr == 0 {
		return 0, 0, errors.New(p.String() + " means any address to a foreign router; write 0.0.0.0 for that")
	}
	return addr, ^uint32(0) << (32 - p.Bits()), nil
}
