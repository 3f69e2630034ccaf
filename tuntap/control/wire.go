package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/tuntap"
)

// order is a message of the keeper to the router; one field is set.
type order struct {
	Add        *tuntap.NetworkConfig `json:"add,omitempty"`    // with descriptors: device, listener, and those below
	Update     *tuntap.NetworkConfig `json:"update,omitempty"` // of an added network
	Serve      bool                  `json:"serve,omitempty"`
	Identified *identity             `json:"identified,omitempty"`
	Snapshot   uint64                `json:"snapshot,omitempty"` // the number of the request
	Stats      bool                  `json:"stats,omitempty"`    // the stats listener comes along
	Gateway    bool                  `json:"gateway,omitempty"`  // and the gateway, last
	Ask        *question             `json:"ask,omitempty"`

	Take    int    `json:"take,omitempty"`    // at the router's door: I am the emperor, and this is my version of the protocol
	Tell    bool   `json:"tell,omitempty"`    // all that you have
	Remove  string `json:"remove,omitempty"`  // a network
	Settled bool   `json:"settled,omitempty"` // what I keep was handed over
}

// identity answers report.Identify: whose is the connection.
type identity struct {
	Conn   uint64 `json:"conn"`
	Vassal string `json:"vassal,omitempty"` // empty: foreign
}

// report is a message of the router to the keeper; one field is set.
type report struct {
	Registered *Registration `json:"registered,omitempty"`
	Refused    *Refusal      `json:"refused,omitempty"`
	Spoofed    *Registration `json:"spoofed,omitempty"`  // packets from an address that is not the peer's
	Identify   uint64        `json:"identify,omitempty"` // with one descriptor: the pidfd of the connection's process
	Closed     *Closing      `json:"closed,omitempty"`
	Serving    bool          `json:"serving,omitempty"`
	Snapshot   *snapshot     `json:"snapshot,omitempty"`
	Answer     *answer       `json:"answer,omitempty"`
	Error      string        `json:"error,omitempty"` // an order failed

	Hello   *hello        `json:"hello,omitempty"`   // the first at the router's door
	Network *networkState `json:"network,omitempty"` // with descriptors, as order.Add
	Devices []deviceState `json:"devices,omitempty"` // with a descriptor each
	Told    *told         `json:"told,omitempty"`    // that was all
	Removed string        `json:"removed,omitempty"` // the network is gone
}

// hello is what every version of the router says first at its door.
type hello struct {
	Protocol int `json:"protocol"`
	PID      int `json:"pid"`
}

// told ends what a router tells about itself.
type told struct {
	Threads  int           `json:"threads"`
	BusyPoll time.Duration `json:"busy_poll"` // of each, in nanoseconds
}

// networkState is a network that the router has.
type networkState struct {
	Config  tuntap.NetworkConfig `json:"config"`
	Stats   bool                 `json:"stats,omitempty"`
	Gateway bool                 `json:"gateway,omitempty"`
}

// descriptorsOf is how many descriptors a network comes with: device, listener,
// and these.
func descriptorsOf(stats, gateway bool) int {
	n := 2
	for _, more := range []bool{stats, gateway} {
		if more {
			n++
		}
	}
	return n
}

// deviceState is a device that was handed to the router.
type deviceState struct {
	Network    string       `json:"network"`
	Vassal     string       `json:"vassal"`
	Registered []netip.Addr `json:"registered,omitempty"`
}

// Registration says that the router gave an address to a peer.
type Registration struct {
	Network string     `json:"network"`
	Vassal  string     `json:"vassal,omitempty"` // empty: a foreign peer
	Addr    netip.Addr `json:"addr"`
}

// Refusal says that a peer claimed an address that it cannot have.
type Refusal struct {
	Registration
	Reason tuntap.Reason `json:"reason"`
	Holder string        `json:"holder,omitempty"` // who has it
}

// Closing says that a vassal's peer was closed by the router.
type Closing struct {
	Network string `json:"network"`
	Vassal  string `json:"vassal"`
	Why     string `json:"why"`
}

type snapshot struct {
	ID       uint64                `json:"id"`
	Networks []tuntap.NetworkStats `json:"networks"`
}

// wire is one end of the control connection: messages of a little-endian
// 32-bit length and JSON; descriptors travel with the length.
type wire struct {
	conn     *net.UnixConn
	mu       sync.Mutex    // serializes sends
	patience time.Duration // for the other end to take a message; 0: for ever
}

// maxMessage bounds a message in bytes: a snapshot of some ten thousand peers.
const maxMessage = 64 << 20

// maxDescriptors is how many come with one message at most (SCM_MAX_FD).
const maxDescriptors = 253

var errTooLong = errors.New("control message is too long")

func newWire(f *os.File) (*wire, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the control descriptor is no unix socket"), c.Close())
	}
	return &wire{conn: u}, nil
}

// newPair makes a control connection: the keeper's end and the router's file.
func newPair() (*wire, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours, err := newWire(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// send sends v with descriptors, which stay the caller's. After an error the
// connection is closed: a message that went half would spoil all that follow.
func (w *wire) send(v any, fds ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d", errTooLong, len(body), maxMessage)
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	b = append(b, body...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.patience > 0 {
		if err := w.conn.SetWriteDeadline(time.Now().Add(w.patience)); err != nil {
			return err
		}
	}
	n, _, err := w.conn.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = w.conn.Write(b[n:])
	}
	if err != nil {
		_ = w.conn.Close()
	}
	return err
}

// receive reads one message into v and its descriptors, which are the caller's.
func (w *wire) receive(v any) ([]*os.File, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, _, _, err := w.conn.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files := descriptors(oob[:oobn])
	if err := w.fill(head[n:]); err != nil {
		return files, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxMessage {
		return files, fmt.Errorf("%w: %d bytes, at most %d", errTooLong, size, maxMessage)
	}
	body := make([]byte, size)
	if err := w.fill(body); err != nil {
		return files, err
	}
	return files, json.Unmarshal(body, v)
}

// fill reads the rest of a message: the end of the connection is none here.
func (w *wire) fill(b []byte) error {
	_, err := io.ReadFull(w.conn, b)
	if errors.Is(err, io.EOF) && len(b) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

func descriptors(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "descriptor"))
		}
	}
	return files
}

// descriptor is f's, without File.Fd's side effect: it makes the open file
// blocking, for everyone who shares it.
func descriptor(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
