package emperor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// history is the last of what a vassal wrote, with the times at which it came.
// That of a vassal is in a file of memory, of which the vault has a descriptor,
// so that the next emperor goes on with it:
//
//	header │ ring of records: when it came, how many bytes, the bytes
//
// A record is written where the header says that nothing is, and then the header,
// which no page is cut by: whenever the emperor is killed, there is a whole
// history, with the last record or without it. It is read and written by calls
// and not mapped, so a file that is cut off is an error and no SIGBUS.
type history struct {
	store store // nil: nothing has come yet
	file  *os.File
	began time.Time
	total int64  // bytes ever taken: the position behind the last
	head  int64  // bytes ever written into the ring
	index []spot // of some records, the oldest one first
}

// store is where a history is: a file, or memory of the process.
type store interface {
	io.ReaderAt
	io.WriterAt
}

// spot is where a record is.
type spot struct {
	ring int64 // bytes that were written into the ring before it
	text int64 // its position
}

// Sizes of a history in bytes. With records of 16 bytes and more the ring has
// outputKept of text.
const (
	historyHead = 64
	historyRing = 512 << 10
	recordHead  = 12
	recordText  = outputRead // at most
	recordMost  = recordHead + recordText
	indexStep   = 16 << 10 // from a spot to the next
	historySize = historyHead + historyRing
)

// endless is more than anybody writes.
const endless = 1 << 62

// historyMagic begins a history's file; another form has another one.
const historyMagic = "fiefout1"

// lastMilli is the last millisecond that JSON has a form for.
const lastMilli = 253402300799999

// newHistory makes a history that the next emperor can have.
func newHistory(now time.Time) (history, error) {
	fd, err := unix.MemfdCreate("history", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("history", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return history{began: now}, fmt.Errorf("make a file of memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "history")
	return history{began: now, store: f, file: f}, nil
}

// restoreHistory goes on with what a former emperor had, in the same file.
func restoreHistory(f *os.File) (history, error) {
	h, err := readHistory(f)
	h.file = f
	return h, err
}

// readHistory checks everything that it finds.
func readHistory(s store) (history, error) {
	h := history{store: s}
	var b [historyHead]byte
	if n, err := s.ReadAt(b[:], 0); n == 0 && errors.Is(err, io.EOF) {
		h.began = time.Now() // its vassal has written nothing
		return h, nil
	} else if n < len(b) {
		return history{}, fmt.Errorf("history: its header has %d bytes, not %d: %w", n, len(b), err)
	}
	if string(b[:8]) != historyMagic {
		return history{}, errors.New("history: it is of another form")
	}
	if binary.LittleEndian.Uint32(b[48:]) != crc32.ChecksumIEEE(b[:48]) {
		return history{}, errors.New("history: the sum of its header is wrong")
	}
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) } //nolint:gosec // as it was written
	first := spot{word(32), word(40)}
	h.began, h.total, h.head = time.Unix(0, word(8)), word(16), word(24)
	if first.ring < 0 || first.text < 0 || h.head > endless || h.total > endless || h.head < first.ring || h.total < first.text || h.head-first.ring > historyRing-recordMost {
		return history{}, errors.New("history: the positions in its header are impossible")
	}
	if first.ring == h.head { // nothing, or what no emperor writes
		return history{}, errors.New("history: it has no record")
	}
	h.index = []spot{first}
	if err := h.walk(first, func(at spot, _ int64, _ []byte) { h.note(at) }); err != nil {
		return history{}, err
	}
	return h, nil
}

// records are buffers for one record.
var records = sync.Pool{New: func() any { return new([recordMost]byte) }}

// add remembers what came just now. What cannot be written is not remembered.
func (h *history) add(b []byte, now time.Time) {
	if h.store == nil {
		h.store = &memory{}
	}
	record := records.Get().(*[recordMost]byte)
	defer records.Put(record)
	for len(b) > 0 {
		n := copy(record[recordHead:], b)
		binary.LittleEndian.PutUint64(record[:], uint64(min(max(now.UnixMilli(), 0), lastMilli))) //nolint:gosec // not negative
		binary.LittleEndian.PutUint32(record[8:], uint32(n))                                      //nolint:gosec // recordText at most
		if h.write(record[:recordHead+n]) != nil {
			return
		}
		h.note(spot{h.head, h.total})
		h.head, h.total, b = h.head+int64(recordHead+n), h.total+int64(n), b[n:]
		if h.publish() != nil {
			return // the next one says it
		}
	}
}

// note notes where a record is, if there is no such note just before it.
func (h *history) note(at spot) {
	if n := len(h.index); n == 0 || at.ring-h.index[n-1].ring >= indexStep {
		h.index = append(h.index, at)
	}
}

// write writes behind the head, round the ring's end.
func (h *history) write(b []byte) error {
	at := h.head % historyRing
	n := min(int64(len(b)), historyRing-at)
	_, err := h.store.WriteAt(b[:n], historyHead+at)
	if err == nil && n < int64(len(b)) {
		_, err = h.store.WriteAt(b[n:], historyHead)
	}
	return err
}

// publish writes the header. What it says that there is leaves room for one more
// record.
func (h *history) publish() error {
	for h.head-h.index[0].ring > historyRing-recordMost {
		h.index = h.index[1:]
	}
	var b [historyHead]byte
	copy(b[:], historyMagic)
	for i, word := range []int64{h.began.UnixNano(), h.total, h.head, h.index[0].ring, h.index[0].text} {
		binary.LittleEndian.PutUint64(b[8+8*i:], uint64(word)) //nolint:gosec // read as it is written
	}
	seal(&b)
	_, err := h.store.WriteAt(b[:], 0)
	return err
}

// seal puts its sum into a header.
func seal(b *[historyHead]byte) { binary.LittleEndian.PutUint32(b[48:], crc32.ChecksumIEEE(b[:48])) }

// walk calls each with the records from a spot on, whose text it may keep and
// change.
func (h *history) walk(from spot, each func(at spot, milli int64, text []byte)) error {
	ring := make([]byte, h.head-from.ring)
	at := from.ring % historyRing
	n := min(int64(len(ring)), historyRing-at)
	if _, err := h.store.ReadAt(ring[:n], historyHead+at); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if _, err := h.store.ReadAt(ring[n:], historyHead); err != nil && n < int64(len(ring)) {
		return fmt.Errorf("history: %w", err)
	}
	for len(ring) > 0 {
		if len(ring) < recordHead {
			return errors.New("history: a record is cut off")
		}
		milli, n := binary.LittleEndian.Uint64(ring), int64(binary.LittleEndian.Uint32(ring[8:]))
		if n == 0 || n > recordText || n > int64(len(ring)-recordHead) || milli > lastMilli {
			return errors.New("history: a record is impossible")
		}
		each(from, int64(milli), ring[recordHead:recordHead+n]) //nolint:gosec // lastMilli at most
		from = spot{from.ring + recordHead + n, from.text + n}
		ring = ring[recordHead+n:]
	}
	if from.text != h.total {
		return errors.New("history: its records are not as long as its header says")
	}
	return nil
}

// since copies what is kept from a position on. Where something is forgotten it
// begins with a line.
func (h *history) since(pos int64) *piece {
	p := &piece{total: h.total, began: h.began}
	if len(h.index) == 0 {
		return p
	}
	from := h.index[0]
	for _, at := range h.index {
		if at.text <= pos {
			from = at
		}
	}
	err := h.walk(from, func(at spot, milli int64, text []byte) {
		if at.text+int64(len(text)) <= pos && at.text+int64(len(text)) < h.total {
			return
		}
		if n := len(p.marks); n == 0 || p.marks[n-1].at != milli {
			p.marks = append(p.marks, mark{at.text, milli})
		}
		if p.kept == nil {
			p.kept = text[:0] // what follows moves up to it
		}
		p.kept = append(p.kept, text...)
	})
	if err != nil { // nobody else writes there
		return &piece{total: h.total, began: h.began}
	}
	if p.from(pos); pos < h.index[0].text {
		p.fromLine()
	}
	return p
}

// part takes the history out of its file, which is closed: from now on it is the
// process's own.
func (h *history) part() {
	if h.file == nil {
		return
	}
	own := &memory{}
	if len(h.index) > 0 {
		own.b = make([]byte, historyHead+min(h.head, historyRing))
		if _, err := h.file.ReadAt(own.b, 0); err != nil {
			h.index = nil
		}
	}
	_ = h.file.Close()
	h.store, h.file = own, nil
}

// memory is a store that grows as it is written, up to historySize.
type memory struct{ b []byte }

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if more := int(at) + len(b) - len(m.b); more > 0 {
		m.b = append(m.b, make([]byte, more)...)
	}
	return copy(m.b[at:], b), nil
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at > int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(b, m.b[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
