package emperor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// journalSize bounds events.jsonl in bytes; with the old one, events.jsonl.1,
// there is twice as much. On a small file system it has journalShare of it at
// most: events must not keep what else the emperor writes from being written.
const (
	journalSize  = 4 << 20
	journalShare = 8 // an eighth
)

func journalPath(state string) string { return filepath.Join(state, "events.jsonl") }

// journalFile is the journal on disk. One goroutine writes; anybody reads.
type journalFile struct {
	path string
	most int64    // bytes that it may have, on a large file system
	f    *os.File // nil: not open
	size int64
	room int64 // bytes that it may have on this one

	names sync.Mutex // held while the names change, or are opened together
}

func (w *journalFile) old() string { return w.path + ".1" }

// lastID is the newest id on disk, 0 without any.
func (w *journalFile) lastID() (last uint64) {
	w.read(func(m stamp, _ []byte) bool {
		last = max(last, m.ID)
		return true
	})
	return last
}

// append adds a line. After an error the file is as it was.
func (w *journalFile) append(line []byte) error {
	if w.removed() {
		w.close()
	}
	if w.f == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size+int64(len(line)) > w.room {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(line)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, w.f.Truncate(w.size))
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// removed says whether somebody has removed the open file.
func (w *journalFile) removed() bool {
	var st unix.Stat_t
	return w.f != nil && unix.Fstat(int(w.f.Fd()), &st) == nil && st.Nlink == 0
}

// rotate makes the file the old one and opens a new one.
func (w *journalFile) rotate() error {
	w.close()
	w.names.Lock()
	err := os.Rename(w.path, w.old())
	w.names.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.open()
}

func (w *journalFile) close() {
	if w.f != nil {
		_ = w.f.Close()
	}
	w.f, w.size = nil, 0
}

// open goes on with the file. A last line that a crash has torn is ended, and
// so becomes one that readers skip.
func (w *journalFile) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.f, w.size, w.room = f, st.Size(), w.most
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Blocks > 0 { // some file systems do not know
		w.room = int64(min(uint64(w.most), fs.Blocks/journalShare*uint64(fs.Bsize))) //nolint:gosec // both are positive, and the smaller one fits
	}
	if w.size == 0 {
		return nil
	}
	var end [1]byte
	if _, err = f.ReadAt(end[:], w.size-1); err == nil && end[0] != '\n' {
		_, err = f.Write([]byte("\n"))
		w.size++
	}
	if err != nil {
		w.close()
	}
	return err
}

// read gives the events on disk to take, the oldest first, until it says no.
// Lines that are none are skipped.
func (w *journalFile) read(take func(stamp, []byte) bool) {
	w.names.Lock()
	var files []*os.File
	for _, path := range []string{w.old(), w.path} {
		if f, err := os.Open(path); err == nil {
			files = append(files, f)
			defer f.Close()
		}
	}
	w.names.Unlock()
	for _, f := range files {
		if !readEvents(f, take) {
			return
		}
	}
}

func readEvents(from io.Reader, take func(stamp, []byte) bool) bool {
	lines := bufio.NewReaderSize(from, 2*eventLine)
	for skip := false; ; {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			skip = true // the rest of the line, too
			continue
		}
		if err != nil {
			return true // the end; a line without one is torn, or being written
		}
		var m stamp
		if !skip && bytes.HasPrefix(line, []byte("{")) && json.Unmarshal(line, &m) == nil && !take(m, line) {
			return false
		}
		skip = false
	}
}
