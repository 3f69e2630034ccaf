package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// message is one of the conversation between an emperor and the vault: JSON in
// a SOCK_SEQPACKET message, with the descriptors that it names.
type message struct {
	Op    string   `json:"op"`
	Key   string   `json:"key,omitempty"`
	Hear  string   `json:"hear,omitempty"`  // the name of a descriptor that is to be read while there is no emperor
	Heard []byte   `json:"heard,omitempty"` // from it
	Names []string `json:"names,omitempty"` // of the descriptors that come along
	Lost  int      `json:"lost,omitempty"`  // keys whose descriptors did not fit in

	fds []int
}

// The operations: put, drop, check and list are the emperor's words; list is
// answered by an item for each key, and done, with which a pidfd of the vault
// comes; check by done, with what was lost.
const (
	opPut   = "put"
	opDrop  = "drop"
	opCheck = "check"
	opList  = "list"
	opItem  = "item"
	opDone  = "done"
)

// maxMessage is the largest message in bytes: names, and no notes.
const maxMessage = 64 << 10

// errCut says that the descriptors of a message did not fit, into this
// process's limit for one.
var errCut = errors.New("descriptors were lost on the way; is the limit of open files (ulimit -n) reached?")

func send(c *net.UnixConn, m *message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes, at most %d fit", len(b), maxMessage)
	}
	var oob []byte
	if len(m.fds) > 0 {
		oob = unix.UnixRights(m.fds...)
	}
	_, _, err = c.WriteMsgUnix(b, oob, nil)
	return err
}

// reader receives messages into one buffer.
type reader struct {
	conn *net.UnixConn
	b    [maxMessage]byte
	oob  []byte
}

func newReader(c *net.UnixConn) *reader {
	return &reader{conn: c, oob: make([]byte, unix.CmsgSpace(4*(maxFiles+1)))}
}

// receive reads one message, whose descriptors are the caller's. With errCut
// the message is whole but for them.
func (r *reader) receive() (*message, error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.b[:], r.oob)
	if err != nil {
		return nil, err
	}
	fds := descriptors(r.oob[:oobn])
	m := &message{}
	err = json.Unmarshal(r.b[:n], m)
	if err == nil && (flags&unix.MSG_CTRUNC != 0 || len(fds) != len(m.Names)) {
		err = errCut
	}
	if err != nil {
		closeAll(fds)
		return m, err
	}
	m.fds = fds
	return m, nil
}

func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// noteName is the name of the note among the descriptors.
const noteName = "note"

// newNote makes the file of a note.
func newNote(text []byte) (int, error) {
	fd, err := unix.MemfdCreate(noteName, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(noteName, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	for written := 0; written < len(text); {
		n, err := unix.Pwrite(fd, text[written:], int64(written))
		if err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
		written += n
	}
	return fd, nil
}

// readNote reads the file of a note, and closes it.
func readNote(f *os.File) ([]byte, error) {
	if f == nil {
		return nil, errors.New("no note")
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text := make([]byte, st.Size())
	_, err = f.ReadAt(text, 0)
	return text, err
}
