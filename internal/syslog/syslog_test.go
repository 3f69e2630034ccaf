package syslog

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		address, format string
		want            Target
		bad             bool
	}{
		"own":         {"", "", Target{"unix", Local, false}, false},
		"path":        {"/run/x", "", Target{"unix", "/run/x", false}, false},
		"path, 5424":  {"/run/x", "rfc5424", Target{"unix", "/run/x", true}, false},
		"udp":         {"udp:192.0.2.1:514", "", Target{"udp", "192.0.2.1:514", true}, false},
		"udp, 3164":   {"udp:log.example:514", "rfc3164", Target{"udp", "log.example:514", false}, false},
		"tcp, IPv6":   {"tcp:[2001:db8::1]:601", "", Target{"tcp", "[2001:db8::1]:601", true}, false},
		"no port":     {"udp:192.0.2.1", "", Target{}, true},
		"port 0":      {"udp:192.0.2.1:0", "", Target{}, true},
		"no host":     {"tcp::514", "", Target{}, true},
		"relative":    {"dev/log", "", Target{}, true},
		"other":       {"http://x", "", Target{}, true},
		"bad format":  {"", "rfc1", Target{}, true},
		"service":     {"udp:h:syslog", "", Target{}, true},
		"host's port": {"udp:h:99999", "", Target{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tc.address, tc.format)
			if (err != nil) != tc.bad || err == nil && got != tc.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for name, tc := range map[string]struct {
		target Target
		pid    int
		want   string
	}{
		"local":       {Target{"unix", "", false}, 0, "<30>Jan  2 03:04:05 fiefdom/blog: hello"},
		"local, pid":  {Target{"unix", "", false}, 7, "<30>Jan  2 03:04:05 fiefdom/blog[7]: hello"},
		"remote 3164": {Target{"udp", "", false}, 0, "<30>Jan  2 03:04:05 host fiefdom/blog: hello"},
		"remote 5424": {Target{"udp", "", true}, 7, "<30>1 2026-01-02T03:04:05.000006Z host fiefdom/blog 7 - - hello"},
		"counted":     {Target{"tcp", "", true}, 0, "63 <30>1 2026-01-02T03:04:05.000006Z host fiefdom/blog - - - hello"},
		"ended":       {Target{"tcp", "", false}, 0, "<30>Jan  2 03:04:05 host fiefdom/blog: hello\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &writer{&Sender{target: tc.target, host: "host"}, "fiefdom/blog", tc.pid}
			if got := string(w.message([]byte("hello"), at)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// No name forges another field.
func TestWord(t *testing.T) {
	for s, want := range map[string]string{
		"fiefdom/blog": "fiefdom/blog", "a b": "a_b", "a: b[1]": "a__b_1_", "ß\n": "__", strings.Repeat("x", 60): strings.Repeat("x", 48),
	} {
		if got := word(s, 48); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// A local syslog that takes a stream gets one message a line.
func TestLocalStream(t *testing.T) {
	nettest.NoLeaks(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := New(Target{"unix", l.Addr().String(), false})
	if _, err := io.WriteString(s.Writer("fiefdom", 0), "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if want := "^<30>.* fiefdom: one\n<30>.* fiefdom: two\n$"; err != nil || !regexp.MustCompile(want).Match(text) {
		t.Errorf("%q, %v", text, err)
	}
}

// A syslog may be away and come back, by the same path.
func TestLocalSyslogComesBack(t *testing.T) {
	nettest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "log")
	s := New(Target{"unix", path, false})
	defer s.Close()
	w := s.Writer("fiefdom/blog", 0)
	if n, err := io.WriteString(w, "nobody hears\n"); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	form := regexp.MustCompile(`^<30>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} fiefdom/blog: (.*)$`)
	for range 2 {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		s.failed = time.Time{}
		if n, err := io.WriteString(w, "one\n\ntwo\n"); n != 9 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		for _, want := range []string{"one", "two"} {
			buf := make([]byte, 1000)
			n, err := l.Read(buf)
			if m := form.FindStringSubmatch(string(buf[:n])); err != nil || m == nil || m[1] != want {
				t.Errorf("got %q, %v", buf[:n], err)
			}
		}
		l.Close()
		os.Remove(path)
	}
}

func TestRemoteSyslog(t *testing.T) {
	nettest.NoLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := New(Target{"tcp", l.Addr().String(), false})
	defer s.Close()
	if _, err := io.WriteString(s.Writer("fiefdom", 7), "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lines := bufio.NewReader(c)
	for _, want := range []string{" fiefdom[7]: one\n", " fiefdom[7]: two\n"} {
		if got, err := lines.ReadString('\n'); err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	}
}
