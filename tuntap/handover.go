package tuntap

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

const (
	handoverLimit   = 1 << 20 // bytes of JSON; the router takes more than a frame only from the emperor
	handoverTimeout = 5 * time.Second
	goodbyeTimeout  = time.Second
)

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

// Lifeline is the emperor's end of a peer: the connection that its device was
// handed over on.
type Lifeline struct {
	conn   *net.UnixConn
	lost   chan struct{}
	once   sync.Once
	err    error
	asking sync.Mutex // one question at a time
	answer chan error // to those that were asked, in their order
	late   int        // answers that nobody waits for any more
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
	l := &Lifeline{conn: conn, lost: make(chan struct{}), answer: make(chan error, mostLate)}
	go l.watch() // ends with the connection; Close waits for it
	return l, nil
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
		return nil, fmt.Errorf("the other end sent a frame of kind %#x; is it a router of ours?", head[3])
	}
	if len(text) > 0 {
		answer = errors.New(string(text))
	}
	return answer, nil
}

// watch takes the router's answers until the end of the connection.
func (l *Lifeline) watch() {
	defer close(l.lost)
	for {
		answer, err := readAnswer(l.conn)
		if err != nil {
			return // why it ended does not matter
		}
		l.answer <- answer // there is room: nobody asks while so many are late
	}
}

// mostLate is how many questions to a router that is held up may go unanswered.
const mostLate = 16

// skip takes the answers that came too late.
func (l *Lifeline) skip() {
	for l.late > 0 {
		select {
		case <-l.answer: //nolint:errcheck // who asked has been told that nobody knows
			l.late--
		default:
			return
		}
	}
}

// ask sends frames and waits for the answer. A router that is held up may answer
// later: that answer is skipped.
func (l *Lifeline) ask(frames []byte) error {
	l.skip()
	if l.late == mostLate {
		return ErrNoAnswer
	}
	err := l.conn.SetWriteDeadline(time.Now().Add(handoverTimeout))
	if err == nil {
		_, err = l.conn.Write(frames)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLineLost, err)
	}
	late := time.After(handoverTimeout)
	for l.late++; ; {
		select {
		case answer := <-l.answer:
			if l.late--; l.late == 0 {
				return answer
			}
		case <-l.lost:
			return ErrLineLost
		case <-late:
			return fmt.Errorf("%w: nothing came within %v", ErrNoAnswer, handoverTimeout)
		}
	}
}

// Lost is closed when the router ended the connection: it died, or the device is gone.
func (l *Lifeline) Lost() <-chan struct{} { return l.lost }

// Close says goodbye, so that the router drops the peer and frees its
// addresses before Close returns. (A connection that merely ends means that
// the emperor died, and the router keeps the peer.)
func (l *Lifeline) Close() error {
	l.once.Do(func() {
		var frame [frameHeader]byte
		putHeader(frame[:], kindGoodbye, 0)
		if err := l.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)); err == nil {
			_, _ = l.conn.Write(frame[:]) // a router that is gone needs no goodbye
		}
		select {
		case <-l.lost:
		case <-time.After(goodbyeTimeout):
			l.err = errors.New("router did not take leave of the device in time")
		}
		l.err = errors.Join(l.err, l.conn.Close())
		<-l.lost
	})
	return l.err
}
