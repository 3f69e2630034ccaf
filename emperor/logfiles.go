package emperor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"fiefdom/internal/logfile"
)

// Bounds of what is read of a vassal's files at a request.
const (
	logsSettle = time.Second // for what waits to get into the file
	logsSlack  = 1 << 20     // bytes that may have come into the files since memory was looked at
	logsLast   = 16 << 20    // bytes of lines that -n is given at most
	lineCost   = 64          // bytes that a line takes beside its text
)

// logFiles are the files of an output.
type logFiles struct {
	*logfile.Reader
	parts []logfile.Part
	ends  []int64 // of the parts; -1: at their end
}

// files opens the files of an output's logto; nil where there are none.
func (o *output) files() (*logFiles, error) {
	o.mu.Lock()
	if o.logs.opened == nil {
		o.mu.Unlock()
		return nil, nil
	}
	queue := o.logs.file
	r, err := o.logs.opened.Reader()
	o.mu.Unlock()
	if err != nil {
		return nil, err
	}
	queue.Flush(logsSettle)
	f := &logFiles{Reader: r}
	if f.parts, err = r.Parts(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	for range f.parts {
		f.ends = append(f.ends, -1)
	}
	return f, nil
}

// older gives the lines from before those that memory has, as far as a query
// asks for them: have is how many it gets from there. Lines of files have no
// times, so with since there are all of the file in which that time is.
func (f *logFiles) older(ctx context.Context, q LogQuery, memory []byte, have int, each func(LogLine) error) error {
	if err := f.cut(ctx, memory); err != nil {
		return err
	}
	if !q.Since.IsZero() {
		for len(f.parts) > 0 && f.parts[0].Until.Before(q.Since.Truncate(time.Second)) {
			f.parts, f.ends = f.parts[1:], f.ends[1:]
		}
	}
	if q.Last == 0 {
		for i := range f.parts {
			if err := f.lines(ctx, i, wholePart, func(text []byte) error { return each(f.line(i, text)) }); err != nil {
				return err
			}
		}
		return nil
	}
	var groups []lastOf // of the parts, from the newest
	want, room := q.Last-have, logsLast
	for i := len(f.parts) - 1; i >= 0 && want > 0 && room > 0; i-- {
		last := lastOf{part: i, most: want, room: room}
		if err := f.lines(ctx, i, int64(room), last.take); err != nil {
			return err
		}
		groups = append(groups, last)
		want, room = want-len(last.lines), room-last.bytes
	}
	for _, group := range slices.Backward(groups) {
		for _, text := range group.lines {
			if err := each(f.line(group.part, text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is one of a part, as it is told.
func (f *logFiles) line(i int, text []byte) LogLine {
	return LogLine{Text: printable(text), File: f.parts[i].Name}
}

// lastOf keeps the last lines of a part.
type lastOf struct {
	part       int
	most, room int
	lines      [][]byte
	bytes      int
}

func (k *lastOf) take(text []byte) error {
	k.lines = append(k.lines, bytes.Clone(text))
	k.bytes += len(text) + lineCost
	for len(k.lines) > 0 && (len(k.lines) > k.most || k.bytes > k.room) {
		k.bytes -= len(k.lines[0]) + lineCost
		k.lines = k.lines[1:]
	}
	return nil
}

const wholePart = -1

// lines gives the lines of a part, up to its end: those that begin in its last
// bytes, where that many are wanted and the file need not be unpacked.
func (f *logFiles) lines(ctx context.Context, i int, last int64, each func(text []byte) error) error {
	from, err := f.Open(f.parts[i])
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was the oldest, and is gone
	}
	if err != nil {
		return err
	}
	defer from.Close()
	begin, err := f.begin(from, i, last)
	if err != nil {
		return err
	}
	var r io.Reader = from
	if f.ends[i] >= 0 {
		r = io.LimitReader(from, f.ends[i]-begin)
	}
	lines := bufio.NewReaderSize(r, outputLine+1)
	if begin > 0 { // behind the end of a line, or in one that is left out
		b, _ := lines.Peek(outputLine + 1)
		n, _ := cutLine(b)
		if n == 0 {
			n = len(b) // the last one has no end
		}
		_, _ = lines.Discard(n) // the next Peek says what is wrong
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := lines.Peek(outputLine + 1)
		if len(b) == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		n, line := cutLine(b)
		if n == 0 {
			n, line = len(b), b // the last one has no end
		}
		if err := each(line); err != nil {
			return err
		}
		if _, err := lines.Discard(n); err != nil {
			return err
		}
	}
}

// begin goes to where the last bytes of a part begin, and one before, and says how
// far that is.
func (f *logFiles) begin(from io.Reader, i int, last int64) (int64, error) {
	file, ok := from.(*os.File)
	if !ok || last == wholePart {
		return 0, nil
	}
	end := f.ends[i]
	if end < 0 {
		st, err := file.Stat()
		if err != nil {
			return 0, err
		}
		end = st.Size()
	}
	return file.Seek(max(0, end-last-1), io.SeekStart)
}

// cut ends the parts where that begins which memory has: it is looked for in the
// last of what they have. Where it is not found, as with lines that a log has
// lost, its beginning will do; else they end at their end.
func (f *logFiles) cut(ctx context.Context, memory []byte) error {
	if len(memory) == 0 {
		return nil
	}
	var tail []byte
	type piece struct{ at, size int64 } // of the tail, and of the whole part
	pieces := make([]piece, len(f.parts))
	first := len(f.parts)
	for first > 0 && len(tail) < len(memory)+logsSlack {
		first--
		part, size, err := f.tail(ctx, first, len(memory)+logsSlack-len(tail))
		if err != nil {
			return err
		}
		for i := first + 1; i < len(f.parts); i++ {
			pieces[i].at += int64(len(part))
		}
		pieces[first] = piece{0, size}
		tail = append(part, tail...)
	}
	const probe = 1 << 10
	at := bytes.LastIndex(tail, memory)
	if at < 0 {
		at = bytes.LastIndex(tail, memory[:min(len(memory), probe)])
	}
	if at < 0 {
		return nil
	}
	for i := len(f.parts) - 1; i >= first; i-- {
		next := int64(len(tail))
		if i+1 < len(f.parts) {
			next = pieces[i+1].at
		}
		if p := pieces[i]; p.at <= int64(at) {
			f.ends[i] = p.size - (next - int64(at))
			f.parts, f.ends = f.parts[:i+1], f.ends[:i+1]
			return nil
		}
	}
	return nil
}

// tail is the last of a part, and the size of all of it.
func (f *logFiles) tail(ctx context.Context, i, most int) (tail []byte, size int64, err error) {
	from, err := f.Open(f.parts[i])
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer from.Close()
	if file, ok := from.(*os.File); ok {
		if size, err = file.Seek(0, io.SeekEnd); err != nil {
			return nil, 0, err
		}
		tail = make([]byte, min(int64(most), size))
		n, err := file.ReadAt(tail, size-int64(len(tail)))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		return tail[:n], size - int64(len(tail)-n), nil
	}
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		err = cmp.Or(ctx.Err(), err)
		size += int64(n)
		if tail = append(tail, b[:n]...); len(tail) > 4*most {
			tail = append([]byte(nil), tail[len(tail)-most:]...)
		}
		if errors.Is(err, io.EOF) {
			return tail[max(0, len(tail)-most):], size, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}
