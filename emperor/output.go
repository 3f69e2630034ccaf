package emperor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Bounds of a vassal's output in bytes.
const (
	outputKept = 256 << 10 // for "fiefdom logs"
	outputLine = 8 << 10   // longer lines are cut into several
	outputRead = 4 << 10   // at a time; every vassal has such a buffer
)

// output takes what a vassal writes: into its log file, else into the
// emperor's log, and the last of it into memory. The FIFO is on disk and the
// app holds it open for reading too, so an app outlives its emperor: nobody
// gets SIGPIPE, and the next emperor reads on.
type output struct {
	name string
	path string
	fifo *os.File  // ours, non-blocking
	log  io.Writer // the emperor's

	mu      sync.Mutex
	file    *os.File // logto
	kept    []byte
	total   int64 // bytes ever taken
	partial []byte
	grown   chan struct{} // closed and replaced when kept grows
	done    chan struct{}
}

// openOutput makes the FIFO and starts to read it.
func openOutput(name, path string, log io.Writer) (*output, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make pipe %s: %w", path, err)
	}
	// Open for both: with a writer always there the reader never sees its end.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	o := &output{name: name, path: path, fifo: os.NewFile(uintptr(fd), path), log: log, grown: make(chan struct{}), done: make(chan struct{})}
	go o.read()
	return o, nil
}

// writer opens the app's end: a blocking one of its own, owned by the app's
// uid so that it may open /dev/stdout again.
func (o *output) writer(uid int) (*os.File, error) {
	if uid >= 0 {
		if err := os.Chown(o.path, uid, -1); err != nil {
			return nil, err
		}
	}
	// Not os.OpenFile: that makes a FIFO non-blocking, for the app too.
	fd, err := unix.Open(o.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", o.path, err)
	}
	return os.NewFile(uintptr(fd), o.path), nil
}

// setFile sends what comes from now on to f, which is the output's; nil: to
// the emperor's log.
func (o *output) setFile(f *os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		_ = o.file.Close()
	}
	o.file = f
}

func (o *output) read() {
	defer close(o.done)
	buf := make([]byte, outputRead)
	for {
		n, err := o.fifo.Read(buf)
		if n > 0 {
			o.take(buf[:n])
		}
		if err != nil {
			return // closed
		}
	}
}

func (o *output) take(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep(b)
	if o.file != nil {
		_, _ = o.file.Write(b) // a full disk loses lines, never the vassal
		return
	}
	o.partial = append(o.partial, b...)
	for {
		i := bytes.IndexByte(o.partial, '\n')
		if i < 0 && len(o.partial) < outputLine {
			break
		}
		if i < 0 || i > outputLine {
			i = outputLine
		}
		o.print(o.partial[:i])
		o.partial = bytes.TrimPrefix(o.partial[i:], []byte("\n"))
	}
	if len(o.partial) == 0 {
		o.partial = nil
	}
}

// Write takes whole lines of a process beside the app.
func (o *output) Write(lines []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep(lines)
	if o.file != nil {
		return o.file.Write(lines)
	}
	for line := range bytes.Lines(lines) {
		o.print(bytes.TrimSuffix(line, []byte("\n")))
	}
	return len(lines), nil
}

// keep remembers the last of what was written.
func (o *output) keep(b []byte) {
	o.total += int64(len(b))
	o.kept = append(o.kept, b...)
	if len(o.kept) > 2*outputKept {
		o.kept = append([]byte(nil), o.kept[len(o.kept)-outputKept:]...)
	}
	close(o.grown)
	o.grown = make(chan struct{})
}

func (o *output) print(line []byte) {
	_, _ = io.WriteString(o.log, printable([]byte(o.name))+" | "+printable(line)+"\n")
}

// printable keeps a vassal from writing to the operator's terminal with
// control bytes (C1 too, which terminals take in UTF-8), or forging lines of
// others.
func printable(line []byte) string {
	line = bytes.TrimSuffix(line, []byte("\r"))
	plain := func(r rune) bool { return r >= ' ' && r < 0x7f || r > 0x9f || r == '\t' }
	if utf8.Valid(line) && !bytes.ContainsFunc(line, func(r rune) bool { return !plain(r) }) {
		return string(line)
	}
	var s strings.Builder
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		if plain(r) && (r != utf8.RuneError || n > 1) {
			s.WriteRune(r)
		} else {
			for _, c := range line[:n] {
				fmt.Fprintf(&s, `\x%02x`, c)
			}
		}
		line = line[n:]
	}
	return s.String()
}

// tail returns what is kept of the output after the first from bytes, the
// position behind it, and a channel that is closed when there is more.
func (o *output) tail(from int64) ([]byte, int64, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(o.total-from, int64(len(o.kept)), outputKept)
	return append([]byte(nil), o.kept[int64(len(o.kept))-n:]...), o.total, o.grown
}

// close takes what is left in the FIFO, ends the reading and removes the FIFO.
// Nobody writes any more: the last words of a vassal are the interesting ones.
func (o *output) close() error {
	err := o.fifo.SetReadDeadline(time.Now()) // wakes read
	<-o.done
	err = errors.Join(err, o.drain(), o.fifo.Close(), os.Remove(o.path))
	o.mu.Lock()
	if len(o.partial) > 0 && o.file == nil {
		o.print(o.partial)
		o.partial = nil
	}
	o.mu.Unlock()
	o.setFile(nil)
	return err
}

// drain reads until the FIFO is empty, which the poller cannot say.
func (o *output) drain() error {
	raw, err := o.fifo.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, outputRead)
	return raw.Control(func(fd uintptr) {
		for left := outputKept; left > 0; {
			n, err := unix.Read(int(fd), buf)
			if n <= 0 || err != nil {
				return
			}
			o.take(buf[:n])
			left -= n
		}
	})
}

// safeName is a vassal's name as one path element: files, cgroups.
func safeName(name string) string {
	var s strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			s.WriteByte(c)
		default:
			fmt.Fprintf(&s, "%%%02x", c)
		}
	}
	if s.Len() > 200 {
		return fmt.Sprintf("%.150s%%%%%.16x", s.String(), sha256.Sum256([]byte(name))) // "%%" is in no other name
	}
	return s.String()
}
