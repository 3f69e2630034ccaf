package packaging

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// The pages whose commands are run, in their order, each on a machine of its own
// with the package installed. The first one installs it itself.
//
// A command is a line "# …" of a block without a language, with what belongs to
// its here document; what follows is what it prints. Numbers, times and blanks may
// differ, addresses may not; a line "…" stands for any lines, of a command that
// must succeed. One that prints nothing in the page must succeed and print nothing. With
// FIEFDOM_TEST_UPDATE=1 the pages are written anew; look at them then.
func TestPagesAreTrue(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/tasks/*.md")
	if err != nil || len(pages) < 12 {
		t.Fatalf("found only the pages %q (%v)", pages, err)
	}
	for _, page := range append(pages, "../../docs/first-hour.md") {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.internet()
			if filepath.Base(page) != "first-hour.md" {
				m.mustSh("dpkg -i fiefdom.deb && systemctl enable --quiet --now fiefdom@emperor")
			}
			if filepath.Base(page) == "proxy.md" {
				m.webServers()
			}
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			lines, commands := m.read(strings.Split(string(text), "\n"))
			if commands < 2 {
				t.Errorf("only %d commands", commands)
			}
			if os.Getenv("FIEFDOM_TEST_UPDATE") == "1" {
				if err := os.WriteFile(page, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// read does what a page says, and returns the page with what was printed.
func (m *machine) read(page []string) (lines []string, commands int) {
	m.t.Helper()
	in := false // a block with commands
	for i := 0; i < len(page); {
		line := page[i]
		if line == "```" || in && strings.HasPrefix(line, "```") {
			in = !in
		} else if strings.HasPrefix(line, "```") { // of a language: up to its end
			end := i + 1 + slices.Index(page[i+1:], "```")
			lines = append(lines, page[i:end]...)
			lines, i = append(lines, page[end]), end+1
			continue
		}
		command, is := strings.CutPrefix(line, "# ")
		if !in || !is {
			lines = append(lines, line)
			i++
			continue
		}
		start := i
		lines = append(lines, line)
		i++
		if _, mark, ok := strings.Cut(line, "<<'"); ok {
			mark, _, _ = strings.Cut(mark, "'")
			for last := ""; last != mark; i++ {
				last = page[i]
				lines = append(lines, last)
				command += "\n" + last
			}
		}
		var want []string
		for ; page[i] != "```" && !strings.HasPrefix(page[i], "# "); i++ {
			want = append(want, page[i])
		}
		lines = append(lines, m.do(start+1, command, want)...)
		commands++
	}
	return lines, commands
}

// asks are commands that only look: what they show may take a moment to be so.
var asks = regexp.MustCompile(`^(fiefdom (ps|status|security|logs|check|events|explain|exec|firewall list)|curl|cat|head|tail|ls|grep|iptables) `)

// do runs a command and compares what it prints.
func (m *machine) do(line int, command string, want []string) []string {
	m.t.Helper()
	const patience = 20 * time.Second
	var got []string
	var err error
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var out string
		out, err = m.sh(command)
		got = nil
		if out = strings.TrimRight(out, "\n"); out != "" {
			for line := range strings.SplitSeq(out, "\n") {
				got = append(got, strings.TrimRight(line, " "))
			}
		}
		cut := slices.Contains(want, "…")
		if fits(got, want) && (err == nil || len(want) > 0 && !cut) {
			return want
		}
		retry := asks.MatchString(command + " ")
		if os.Getenv("FIEFDOM_TEST_UPDATE") == "1" && !cut && (len(want) == 0 || !retry || time.Now().After(end.Add(2*time.Second-patience))) {
			m.t.Logf("line %d: %s: %v", line, command, err)
			return got
		}
		if !retry || time.Now().After(end) {
			break
		}
	}
	m.t.Errorf("line %d: %s\nprints (%v)\n%s\nthe page says\n%s", line, command, err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	return want
}

// fits compares what is printed with what a page says.
func fits(got, want []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] != "…":
		return len(got) > 0 && alike(got[0]) == alike(want[0]) && fits(got[1:], want[1:])
	}
	for i := range len(got) + 1 {
		if fits(got[i:], want[1:]) {
			return true
		}
	}
	return false
}

var differs = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+(/\d+)?|\d+([.:]\d+)*(ns|µs|us|ms|[smhdBKMG])?\b|\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b|[ \t]+|\b[0-9a-f]{7,}(-dirty)?\b`)

// alike is a line without what may differ from run to run.
func alike(line string) string {
	return strings.TrimSpace(differs.ReplaceAllStringFunc(line, func(s string) string {
		switch {
		case strings.Count(s, ".") == 3 && !strings.Contains(s, ":"):
			return s
		case strings.TrimSpace(s) == "":
			return " "
		}
		return "N"
	}))
}

func TestAlike(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		alike      bool
	}{
		{"times and sizes", "blog running 12s 126 10.9.0.7 430B 1.2K", "blog  running  3m  99  10.9.0.7  1.0M  28B", true},
		{"another address", "blog 10.9.0.7", "blog 10.9.0.8", false},
		{"another word", "blog running", "blog backoff", false},
		{"dates", "Sat, 21 Nov 2026 06:11:02 GMT", "Mon, 2 Mar 2027 16:01:59 GMT", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := alike(tt.a) == alike(tt.b); got != tt.alike {
				t.Errorf("%q and %q", alike(tt.a), alike(tt.b))
			}
		})
	}
	if !fits([]string{"a", "b", "c"}, []string{"…", "c"}) || !fits(nil, []string{"…"}) || fits([]string{"a"}, nil) || fits([]string{"a"}, []string{"…", "b"}) {
		t.Error("a line … does not stand for any lines")
	}
}

// internet has example.org answer, with the address that it sees the client
// under.
func (m *machine) internet() {
	m.t.Helper()
	m.mustSh("echo " + nettest.InetAddr4.String() + " example.org >>/etc/hosts")
	var l net.Listener
	m.Inet.Do(m.t, func() {
		var err error
		if l, err = net.Listen("tcp", net.JoinHostPort(nettest.InetAddr4.String(), "80")); err != nil {
			m.t.Fatal(err)
		}
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "hello %s\n", host)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	m.t.Cleanup(func() { server.Close(); <-done })
}

// webServers gives the machine the distribution's web servers as they are after
// their installation: nginx runs.
func (m *machine) webServers() {
	m.t.Helper()
	const proxies = "../../bin/proxies"
	from, err := filepath.Abs(proxies)
	if err == nil {
		_, err = os.Stat(proxies)
	}
	if err != nil {
		m.t.Fatalf("%v; unpack them first: make deps", err)
	}
	m.mustSh("rm -rf /etc/nginx /etc/caddy; cp -a " + from + "/etc/nginx " + from + "/etc/caddy /etc; cp -a " + from + "/usr/. /usr" +
		"; mkdir -p /var/lib/nginx /var/log/nginx && nginx")
}
