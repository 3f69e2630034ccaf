// Package syslog sends lines to a syslog, by RFC 3164 or RFC 5424. It may take
// its time, and fails rather than waits for ever; who must not wait puts a queue
// before it.
package syslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Local is the address of the machine's own syslog.
const Local = "/dev/log"

// priority is daemon.info.
const priority = 3<<3 | 6

const (
	patience = 5 * time.Second // for a connection, and for a message to be taken
	pause    = time.Second     // after a connection failed
)

// Target is where messages go, and in which form.
type Target struct {
	Network string // unix, udp or tcp
	Address string // a path, or HOST:PORT
	Modern  bool   // RFC 5424, not 3164
}

// Parse reads an address, "" for the machine's own syslog: a path, udp:HOST:PORT
// or tcp:HOST:PORT; and a format, rfc3164 or rfc5424, "" for what is usual there.
func Parse(address, format string) (Target, error) {
	t := Target{Network: "unix", Address: address}
	network, rest, _ := strings.Cut(address, ":")
	switch {
	case address == "":
		t.Address = Local
	case network == "udp" || network == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 || host == "" {
			return t, fmt.Errorf("%q: want %s:HOST:PORT", address, network)
		}
		t = Target{Network: network, Address: rest, Modern: true}
	case !strings.HasPrefix(address, "/"):
		return t, fmt.Errorf("%q: want a path such as %s, udp:HOST:PORT or tcp:HOST:PORT", address, Local)
	}
	switch format {
	case "":
	case "rfc3164", "rfc5424":
		t.Modern = format == "rfc5424"
	default:
		return t, fmt.Errorf("%q: want rfc3164 or rfc5424", format)
	}
	return t, nil
}

// Sender is a connection to a syslog, made when it is needed. Its writers may be
// used side by side.
type Sender struct {
	target Target
	host   string

	mu     sync.Mutex
	conn   net.Conn // nil: none
	failed time.Time
	err    error // of the last attempt to connect
}

// New makes a Sender, which does not connect yet.
func New(t Target) *Sender {
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	return &Sender{target: t, host: word(host, 255)}
}

// Writer sends lines under a name; each write has whole lines. pid is 0 where
// there is no process to name.
func (s *Sender) Writer(name string, pid int) io.Writer {
	const longest = 48 // RFC 5424's APP-NAME
	return &writer{s, word(name, longest), pid}
}

// Close ends the connection.
func (s *Sender) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drop()
}

func (s *Sender) drop() error {
	conn := s.conn
	if s.conn = nil; conn == nil {
		return nil
	}
	return conn.Close()
}

type writer struct {
	*Sender
	name string
	pid  int
}

// Write returns how many bytes are in messages that were sent.
func (w *writer) Write(b []byte) (int, error) {
	sent := 0
	for line := range bytes.Lines(b) {
		if text := bytes.TrimRight(line, "\r\n"); len(text) > 0 {
			if err := w.send(w.message(text, time.Now())); err != nil {
				return sent, fmt.Errorf("syslog: %w", err)
			}
		}
		sent += len(line)
	}
	return sent, nil
}

// message is one message, as its transport wants it, but for a local stream's end.
func (w *writer) message(text []byte, now time.Time) []byte {
	var b []byte
	if w.target.Modern {
		pid := "-"
		if w.pid > 0 {
			pid = strconv.Itoa(w.pid)
		}
		b = fmt.Appendf(nil, "<%d>1 %s %s %s %s - - %s", priority, now.Format("2006-01-02T15:04:05.000000Z07:00"), w.host, w.name, pid, text)
	} else {
		b = fmt.Appendf(nil, "<%d>%s ", priority, now.Format(time.Stamp))
		if w.target.Network != "unix" {
			b = fmt.Append(b, w.host, " ")
		}
		b = append(b, w.name...)
		if w.pid > 0 {
			b = fmt.Appendf(b, "[%d]", w.pid)
		}
		b = fmt.Appendf(b, ": %s", text)
	}
	switch {
	case w.target.Network != "tcp":
		return b
	case w.target.Modern: // RFC 6587: octet counting
		return append(fmt.Appendf(nil, "%d ", len(b)), b...)
	}
	return append(b, '\n')
}

// send sends one message, by a new connection if the one that was is dead.
func (s *Sender) send(message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.conn == nil
	if err := s.connect(); err != nil {
		return err
	}
	err := s.put(message)
	if err == nil {
		return nil
	}
	err = errors.Join(err, s.drop())
	if fresh || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err := s.connect(); err != nil { // the syslog was started anew
		return err
	}
	if err := s.put(message); err != nil {
		return errors.Join(err, s.drop())
	}
	return nil
}

func (s *Sender) put(message []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if s.conn.RemoteAddr().Network() == "unix" { // a stream
		message = append(message, '\n')
	}
	_, err := s.conn.Write(message)
	return err
}

func (s *Sender) connect() error {
	if s.conn != nil {
		return nil
	}
	if s.err != nil && time.Since(s.failed) < pause {
		return s.err
	}
	networks := []string{s.target.Network}
	if s.target.Network == "unix" {
		networks = []string{"unixgram", "unix"}
	}
	for _, network := range networks {
		if s.conn, s.err = net.DialTimeout(network, s.target.Address, patience); s.err == nil {
			return nil
		}
		s.conn = nil
	}
	s.failed = time.Now()
	return s.err
}

// word is a name as messages can have it: printable ASCII without blanks, and
// nothing that ends a tag.
func word(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune(`:[]<>"\`, r) {
			return r
		}
		return '_'
	}, s)
	return s[:min(len(s), most)]
}
