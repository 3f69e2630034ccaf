package emperor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
)

// Bounds of a vassal's output in bytes.
const (
	outputKept = 256 << 10 // for "fiefdom logs"
	outputLine = 8 << 10   // longer lines are cut into several
	outputRead = 4 << 10   // at a time; every vassal has such a buffer
)

// output takes what a vassal writes: into its log file and to syslog, where its
// ini says so, else into the emperor's log, and the last of it into memory. It
// never waits for any of them. The FIFO is on disk and the app holds it open for
// reading too, so an app outlives its emperor: nobody gets SIGPIPE, and the next
// emperor reads on.
type output struct {
	name  string
	path  string
	fifo  *os.File       // ours, non-blocking
	log   io.Writer      // the emperor's, by way of queue
	queue *logfile.Queue // nil: log does not block

	mu      sync.Mutex
	logs    logs
	history history
	partial []byte        // of a line
	grown   chan struct{} // closed when the history grows; nil: nobody waits
	done    chan struct{} // closed when the FIFO is not read any more
	ended   chan struct{} // closed when all that was in it is taken
}

// openOutput makes the FIFO and starts to read it. Writes to log may block; the
// vassal never does.
func openOutput(name, path string, log io.Writer) (*output, error) {
	o, err := makeOutput(name, path, log)
	if err == nil {
		go o.read()
	}
	return o, err
}

// makeOutput makes the FIFO. Whoever calls it has it read.
func makeOutput(name, path string, log io.Writer) (*output, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make pipe %s: %w", path, err)
	}
	// Open for both: with a writer always there the reader never sees its end.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	o := &output{name: name, path: path, fifo: os.NewFile(uintptr(fd), path), log: log, done: make(chan struct{}), ended: make(chan struct{}), history: history{began: time.Now()}}
	if _, above := log.(*output); !above { // an attached process's lines go through the vassal's output
		o.queue = logfile.NewQueue(log, func(l logfile.Lost, why string) string {
			return fmt.Sprintf("fiefdom: %d bytes with %d ends of lines of %s were lost here: %s", l.Bytes, l.Lines, printable([]byte(name)), why)
		})
		o.log = o.queue
	}
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
	if o.logs.file != nil {
		_, _ = o.logs.file.Write(b)
	}
	if !o.asLines() {
		return
	}
	o.partial = append(o.partial, b...)
	rest := o.partial
	for {
		n, line := cutLine(rest)
		if n == 0 {
			break
		}
		o.print(line)
		rest = rest[n:]
	}
	o.partial = append(o.partial[:0], rest...)
	if len(rest) == 0 {
		o.partial = nil
	}
}

// asLines says whether anybody takes the output line by line.
func (o *output) asLines() bool { return o.logs.file == nil || o.logs.syslog != nil }

// Write takes whole lines of a process beside the app.
func (o *output) Write(lines []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep(lines)
	if o.logs.file != nil {
		_, _ = o.logs.file.Write(lines)
	}
	if o.asLines() {
		for line := range bytes.Lines(lines) {
			o.print(bytes.TrimSuffix(line, []byte("\n")))
		}
	}
	return len(lines), nil
}

// keep remembers the last of what was written.
func (o *output) keep(b []byte) {
	o.history.add(b, time.Now())
	if o.grown != nil {
		close(o.grown)
		o.grown = nil
	}
}

// print gives one line to syslog, or else to the emperor's log.
func (o *output) print(line []byte) {
	text := printable(line)
	if o.logs.syslog != nil {
		_, _ = io.WriteString(o.logs.syslog, text+"\n")
		return
	}
	_, _ = io.WriteString(o.log, printable([]byte(o.name))+" | "+text+"\n")
}

// outlive has the next emperor go on with the history: with that of a former
// one, or else with a new one. Nobody reads the FIFO yet.
func (o *output) outlive(former *os.File, log *slog.Logger) {
	if former != nil {
		h, err := restoreHistory(former)
		if err == nil {
			o.history = h
			return
		}
		closeFile(former)
		log.Warn("what it wrote before is not shown any more", "vassal", o.name, "err", err)
	}
	var err error
	if o.history, err = newHistory(time.Now()); err != nil {
		log.Warn("what it writes is not kept for the next emperor", "vassal", o.name, "err", err)
	}
}

// tail copies what is kept of the output from a position on, and returns a
// channel that is closed when there is more.
func (o *output) tail(from int64) (*piece, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown == nil {
		o.grown = make(chan struct{})
	}
	return o.history.since(from), o.grown
}

// shut takes what is left in the FIFO, ends the reading and removes the FIFO:
// the last words of a vassal are the interesting ones.
func (o *output) shut() error {
	err := o.fifo.SetReadDeadline(time.Now()) // wakes read
	<-o.done
	err = errors.Join(err, o.drain(), o.fifo.Close(), os.Remove(o.path))
	defer close(o.ended)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 && o.asLines() {
		o.print(o.partial)
		o.partial = nil
	}
	o.history.part() // some may still read it
	return err
}

// lastWords is how long a log may take for what waits at its end.
const lastWords = time.Second

// finish writes what waits for the logs, and closes them. A log that takes
// nothing is not waited for.
func (o *output) finish() {
	o.mu.Lock()
	old := o.logs
	o.logs = logs{path: old.path}
	o.logs.before, o.logs.why = old.lost()
	o.mu.Unlock()
	old.close()
	if o.queue != nil {
		_ = o.queue.Close(lastWords)
	}
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
