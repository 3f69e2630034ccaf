package emperor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// LogQuery says which lines of a vassal's output are wanted.
type LogQuery struct {
	Since  time.Time // not those that came before; zero: all that are kept
	Last   int       // at most so many of those that are there; 0: all
	Next   string    // only those after the line that had this; of another history all
	Follow bool      // go on with those that come
}

func (q LogQuery) values() url.Values {
	v := url.Values{}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Last > 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if q.Next != "" {
		v.Set("next", q.Next)
	}
	if q.Follow {
		v.Set("follow", "")
	}
	return v
}

func parseLogQuery(v url.Values) (q LogQuery, err error) {
	q.Follow, q.Next = v.Has("follow"), v.Get("next")
	if v.Has("since") {
		if q.Since, err = time.Parse(time.RFC3339Nano, v.Get("since")); err != nil {
			return q, fmt.Errorf("since: %w", err)
		}
	}
	if v.Has("last") {
		if q.Last, err = strconv.Atoi(v.Get("last")); err != nil || q.Last < 1 {
			return q, fmt.Errorf("last=%q: want a number from 1 on", v.Get("last"))
		}
	}
	return q, nil
}

// choose applies the query to what is kept, whose times are whole milliseconds.
func (q LogQuery) choose(lines []LogLine) []LogLine {
	i := 0
	for i < len(lines) && lines[i].Time.Before(q.Since.Truncate(time.Millisecond)) {
		i++
	}
	lines = lines[i:]
	if q.Last > 0 {
		lines = lines[max(0, len(lines)-q.Last):]
	}
	return lines
}

// reachesBack says whether a query wants more than memory has.
func (q LogQuery) reachesBack(kept *piece, lines []LogLine) bool {
	switch {
	case !q.Since.IsZero() && kept.first() == 0 && q.Since.After(kept.began):
		return false // nothing came before, under this emperor
	case !q.Since.IsZero() && len(lines) > 0 && lines[0].Time.Before(q.Since):
		return false
	}
	return q.Last > len(lines) || !q.Since.IsZero() && (q.Last == 0 || q.Last > len(q.choose(lines)))
}

// apiLogs sends what is kept of a vassal's output, as text or, with ?json, as
// one LogLine a line; with ?follow it goes on until the client leaves.
func (e *Emperor) apiLogs(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	values := r.URL.Query()
	q, err := parseLogQuery(values)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	write := writeText
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if values.Has("json") {
		write = writeJSON
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	if o := e.outputOf(s.Name); o != nil { // else it never started
		sendLogs(w, r, o, q, write)
	}
	if q.Follow && r.Context().Err() == nil && e.isEnding() {
		panic(http.ErrAbortHandler) // the vassal may be the next emperor's: this is no end of its output
	}
}

// isEnding says whether the emperor ends all vassals.
func (e *Emperor) isEnding() bool {
	answer := make(chan bool, 1)
	e.call(func() { answer <- e.ending })
	select {
	case ending := <-answer:
		return ending
	case <-e.stopped:
		return true
	}
}

// LastLines are at most n of the last lines of a vassal's output.
func (e *Emperor) LastLines(name string, n int) []LogLine {
	o := e.outputOf(name)
	if o == nil {
		return []LogLine{}
	}
	kept, _ := o.tail(0)
	lines, _ := kept.lines(false)
	return LogQuery{Last: n}.choose(lines)
}

func (e *Emperor) outputOf(name string) (o *output) {
	found := make(chan *output, 1)
	e.call(func() {
		if v := e.vassals[name]; v != nil {
			found <- v.output
		} else {
			found <- nil
		}
	})
	select {
	case o = <-found:
	case <-e.stopped:
	}
	return o
}

func writeText(w io.Writer, l LogLine) error {
	_, err := io.WriteString(w, l.Text+"\n")
	return err
}

func writeJSON(w io.Writer, l LogLine) error { return json.NewEncoder(w).Encode(l) }

// readLogs are the places of those who read files of logs: unpacking costs.
var readLogs = newPlaces(8)

// sendOlder sends what files have from before what memory has, as far as that is
// asked for.
func sendOlder(w http.ResponseWriter, r *http.Request, o *output, q LogQuery, kept *piece, lines []LogLine, write func(LogLine) error) error {
	if uid, known := r.Context().Value(peerKey{}).(uint32); !known || !mayBeTouched(uid, Status{owner: owner{uid: 0}}) {
		give, err := readLogs.take(r.Context(), uid, apiSilence)
		if err != nil {
			return err
		}
		defer give()
	}
	f, err := o.files()
	if f == nil || err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	conn := http.NewResponseController(w)
	return f.older(r.Context(), q, kept.kept, len(q.choose(lines)), func(l LogLine) error {
		return errors.Join(conn.SetWriteDeadline(time.Now().Add(apiSilence)), write(l))
	})
}

func sendLogs(w http.ResponseWriter, r *http.Request, o *output, q LogQuery, write func(io.Writer, LogLine) error) {
	conn := http.NewResponseController(w)
	out := bufio.NewWriter(w)
	over := false // the vassal writes no more
	for from := o.position(q.Next); ; {
		kept, grown := o.tail(from)
		lines, next := kept.lines(q.Follow && !over)
		if from == 0 && q.reachesBack(kept, lines) {
			if err := sendOlder(w, r, o, q, kept, lines, func(l LogLine) error { return write(out, l) }); err != nil {
				_ = write(out, LogLine{Text: "fiefdom: the files of the log cannot be read: " + printable([]byte(err.Error()))})
			}
		}
		from = next
		if conn.SetWriteDeadline(time.Now().Add(apiSilence)) != nil {
			return
		}
		for i, l := range q.choose(lines) {
			if q.Follow {
				l.Next = kept.next(l)
			}
			const often = 256 // a client that reads is given time, however slow it is
			if i%often == 0 && conn.SetWriteDeadline(time.Now().Add(apiSilence)) != nil || write(out, l) != nil {
				return
			}
		}
		q.Since, q.Last = time.Time{}, 0
		if out.Flush() != nil || !q.Follow || over || conn.Flush() != nil {
			return
		}
		select {
		case <-grown:
		case <-o.ended:
			over = true
		case <-r.Context().Done():
			return
		}
	}
}

// next names the place after a line, for whoever has the history later.
func (p *piece) next(l LogLine) string { return fmt.Sprintf("%x.%x", p.began.UnixNano(), l.end) }

// position is what next named; 0: nothing, or it was in another history.
func (o *output) position(next string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var began, pos int64
	if n, err := fmt.Sscanf(next, "%x.%x", &began, &pos); n < 2 || err != nil || began != o.history.began.UnixNano() || pos < 0 || pos > o.history.total {
		return 0
	}
	return pos
}

// Logs copies a vassal's output to w, line by line and without control bytes;
// with follow, until ctx is done.
func (c *Client) Logs(ctx context.Context, name string, follow bool, w io.Writer) error {
	return c.LogLines(ctx, name, LogQuery{Follow: follow}, func(l LogLine) error { return writeText(w, l) })
}

// LogLines calls each with the lines of a vassal's output, until there are no
// more or each returns an error.
func (c *Client) LogLines(ctx context.Context, name string, q LogQuery, each func(LogLine) error) error {
	v := q.values()
	v.Set("json", "")
	body, err := c.open(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name)+"/logs?"+v.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var l LogLine
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(l); err != nil {
			return err
		}
	}
}
