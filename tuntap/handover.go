package tuntap

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

const (
	handoverLimit   = 1 << 20 // bytes of JSON; the router takes more than a frame only from the emperor
	handoverTimeout = 5 * time.Second
)

var errNotAnswer = errors.New("the other end sent what is no answer")

// Handover is what the emperor tells the router about a vassal's device.
type Handover struct {
	Vassal string `json:"vassal"`
	// May is what the vassal may register; a prefix shorter than an address is granted whole.
	// Empty: the addresses that the network's config reserves for it, else one undeclared address a family.
	May []netip.Prefix `json:"may,omitempty"`
	// Registered is given back after a restart of the router.
	Registered []netip.Addr `json:"registered,omitempty"`
	// Rules are the vassal's own, from its ini.
	Rules []DeviceRule `json:"rules,omitempty"`
}

// DeviceRule is a rule of one vassal's device.
type DeviceRule struct {
	Direction firewall.Direction `json:"direction"`
	Rule      firewall.Rule      `json:"rule"`
	Target    netip.AddrPort     `json:"target,omitzero"` // the far end that an allowed packet goes to; zero: by the table
}

// encode returns the hand-over as frames: parts, then the end.
func (h Handover) encode() ([]byte, error) {
	doc, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return frameDocument(doc, kindHand)
}

// HandOver gives dev to the router that listens on socket and waits for its
// answer. Only the emperor that started the router may do so. dev stays the
// caller's; the router has a duplicate. The caller closes the Lifeline.
func HandOver(socket string, dev *Device, h Handover) (*Lifeline, error) {
	fail := func(err error) (*Lifeline, error) {
		return nil, fmt.Errorf("hand device %q of vassal %q to router %s: %w", dev.Name, h.Vassal, socket, err)
	}
	frames, err := h.encode()
	if err != nil {
		return fail(err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	if err := handOver(conn, dev, frames); err != nil {
		conn.Close()
		return fail(unanswered(err))
	}
	return newLifeline(conn), nil
}

func handOver(conn *net.UnixConn, dev *Device, frames []byte) error {
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	n, _, err := conn.WriteMsgUnix(frames, unix.UnixRights(dev.FD()), nil)
	if err == nil && n < len(frames) {
		_, err = conn.Write(frames[n:])
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	answer, err := readAnswer(conn)
	if err := errors.Join(err, answer); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// readAnswer reads the router's answer: what it has against what it was told,
// nil if nothing.
func readAnswer(r io.Reader) (answer, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("wait for the answer: %w", err)
	}
	text := make([]byte, binary.LittleEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if head[3] != kindAnswer {
		return nil, fmt.Errorf("%w: a frame of kind %#x; is it a router of ours?", errNotAnswer, head[3])
	}
	if len(text) > 0 {
		answer = errors.New(string(text))
	}
	return answer, nil
}
