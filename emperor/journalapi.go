package emperor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// watchers bounds how many may follow the events at once: so many of root's, and so
// many of all others' together. Each costs a connection and a goroutine. Events
// wait for none of them.
const watchers = 256

// apiEvents sends events, one JSON object a line: ?vassal=NAME only these, ?since=TIME
// (RFC 3339) only later ones, ?follow goes on with those to come until the
// client leaves; with it and without since it begins with the next.
func (e *Emperor) apiEvents(w http.ResponseWriter, r *http.Request) {
	j, query := e.Journal, r.URL.Query()
	if j == nil {
		http.Error(w, "this emperor keeps no journal", http.StatusNotFound)
		return
	}
	var since time.Time
	if text := query.Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			http.Error(w, fmt.Sprintf("since=%s: want a time as in RFC 3339, such as 2026-01-31T12:00:00Z", text), http.StatusBadRequest)
			return
		}
	}
	stream := eventStream{w: w, conn: http.NewResponseController(w)}
	uid, known := r.Context().Value(peerKey{}).(uint32)
	stream.wants = func(m stamp) bool {
		return known && (uid == 0 || uid == m.Owner || int(uid) == os.Getuid()) &&
			(!query.Has("vassal") || m.Vassal == query.Get("vassal")) && !m.Time.Before(since)
	}
	follow := query.Has("follow")
	if follow {
		watching := &e.watching
		if uid != 0 {
			watching = &e.othersWatching // they keep root from nothing
		}
		defer watching.Add(-1)
		if watching.Add(1) > watchers {
			http.Error(w, fmt.Sprintf("%d watch the events already; there is no place for more", watchers), http.StatusServiceUnavailable)
			return
		}
		if since.IsZero() {
			stream.id = j.newest()
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if stream.flush() == nil && stream.catchUp(j) == nil {
		stream.copy(r.Context(), j, follow, e.stopped)
	}
}

// eventStream is one client's place among the events.
type eventStream struct {
	w     io.Writer
	conn  *http.ResponseController
	wants func(stamp) bool
	id    uint64 // of the last event that was looked at
}

// catchUp sends what memory does not have any more. What the file does not have
// either is lost.
func (s *eventStream) catchUp(j *Journal) (err error) {
	from := s.id
	_, missed, _ := j.after(from)
	if missed == 0 {
		return nil
	}
	s.id += missed
	j.file.read(func(m stamp, line []byte) bool {
		if m.ID > from && m.ID <= s.id && s.wants(m) {
			err = s.send(line)
		}
		return err == nil
	})
	return err
}

// copy sends the events after s.id. Whoever takes them too slowly misses some,
// and is told how many; whoever takes none for a while is left.
func (s *eventStream) copy(ctx context.Context, j *Journal, follow bool, stopped <-chan struct{}) {
	for ctx.Err() == nil {
		batch, missed, grown := j.after(s.id)
		if missed > 0 {
			late := Event{Time: time.Now(), Kind: KindLost, Message: "events were missed: you read too slowly", Fields: map[string]any{"events": missed}}
			if s.id += missed; s.send(late.encode()) != nil {
				return
			}
			continue
		}
		for _, en := range batch {
			s.id = en.ID
			if s.wants(en.stamp) && s.send(en.line) != nil {
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		if s.flush() != nil || !follow {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
		case <-stopped:
			return
		}
	}
}

func (s *eventStream) send(line []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(apiSilence)); err != nil {
		return err
	}
	_, err := s.w.Write(line)
	return err
}

func (s *eventStream) flush() error {
	return errors.Join(s.conn.SetWriteDeadline(time.Now().Add(apiSilence)), s.conn.Flush())
}

// EventQuery says which events somebody wants.
type EventQuery struct {
	Vassal string    // empty: all that he may see
	Since  time.Time // zero: all; with Follow, the next
	Follow bool      // go on with those to come
}

// Events gives events to take, the oldest first, until it fails; with Follow,
// until ctx is done, or io.ErrUnexpectedEOF: the emperor has ended.
func (c *Client) Events(ctx context.Context, q EventQuery, take func(Event) error) error {
	values := url.Values{}
	if q.Vassal != "" {
		values.Set("vassal", q.Vassal)
	}
	if !q.Since.IsZero() {
		values.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Follow {
		values.Set("follow", "")
	}
	body, err := c.open(ctx, http.MethodGet, "/events?"+values.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	for events := json.NewDecoder(body); ; {
		var ev Event
		if err := events.Decode(&ev); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if q.Follow {
				return io.ErrUnexpectedEOF // such a stream ends when the emperor does
			}
			return nil
		} else if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
		if err := take(ev); err != nil {
			return err
		}
	}
}
