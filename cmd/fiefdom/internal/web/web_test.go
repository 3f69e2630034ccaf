package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"fiefdom/emperor"
	"fiefdom/firewall"
	"fiefdom/tuntap"
)

// evil is a name, and whatever else a vassal says.
const evil = `x"'><script>alert(1)</script><img src=x onerror=alert(2)>` + "\x1b[2J\u202egpj\xff</pre>&"

// fake is a source of some vassals, among them a hostile one.
func fake(count int) Source {
	all := []emperor.Status{{
		Name: evil, State: emperor.Invalid, Error: "line one\n" + evil, Says: evil, File: evil, Socket: evil, LastEnd: evil, Command: []string{evil},
		Warnings: []string{evil}, Processes: []emperor.ProcessStatus{{Name: evil, Command: evil, Error: evil, State: emperor.Backoff}},
		Output: &emperor.OutputStatus{File: evil}, Drops: map[string]uint64{"rule": 3},
	}}
	for i := len(all); i < count; i++ {
		all = append(all, emperor.Status{
			Name: fmt.Sprintf("vassal%04d", i), State: emperor.Running, Since: time.Now().Add(-time.Hour), Says: "serving", PIDs: 3, PID: 77,
			MemoryBytes: 50 << 20, CPUSeconds: 12, RxBytes: uint64(1000 * i), Drops: map[string]uint64{"isolate": uint64(i)},
		})
	}
	return Source{
		Self:    func() emperor.Self { return emperor.Self{Instance: "test", Version: "1", Began: time.Now()} },
		Vassals: func(context.Context) []emperor.Status { return all },
		Logs: func(_ string, last int) []emperor.LogLine {
			return []emperor.LogLine{{Time: time.Now(), Text: fmt.Sprint("one of ", last)}, {Time: time.Now(), Text: evil}}
		},
		Events: func(vassal string, _ int) []emperor.Event {
			return []emperor.Event{{Time: time.Now(), Kind: "died", Vassal: evil, Message: "vassal died", Fields: map[string]any{"reason": evil, "of": vassal}}}
		},
		Drops: func(context.Context, string) ([]tuntap.PeerDrops, error) {
			return []tuntap.PeerDrops{{Network: "fief0", Drops: []tuntap.DropExample{
				{
					Reason: tuntap.DropRule, Rule: &tuntap.RulePlace{Text: "deny any 203.0.113.0/24", File: evil, Line: 7}, Count: 3, Last: time.Now(), Way: firewall.Out, Proto: "tcp",
					Src: netip.MustParseAddr("10.9.0.7"), Dst: netip.MustParseAddr("203.0.113.9"), Port: 80,
				},
			}}}, nil
		},
		Networks: func(context.Context) ([]tuntap.NetworkStats, error) {
			return []tuntap.NetworkStats{{Name: "fief0"}}, nil
		},
	}
}

// site answers requests of a test as the server does, the guard before it.
func newSite(t testing.TB, o Options) (http.Handler, *watch) {
	w := &watch{ask: o.Vassals}
	return newGuard(o, routes(&site{Source: o.Source, watch: w, ctx: t.Context()})), w
}

func get(t testing.TB, h http.Handler, target string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = "localhost"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// T53: only a browser, or a tool, of this machine or behind a tunnel gets an answer,
// and only to what reads.
func TestGuard(t *testing.T) {
	h, _ := newSite(t, Options{Source: fake(1)})
	header := func(key, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(key, value) }
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	for _, tc := range []struct {
		name   string
		status int
		change []func(*http.Request)
	}{
		{"localhost", 200, nil},
		{"with a port", 200, []func(*http.Request){host("LocalHost:8080")}},
		{"IPv4", 200, []func(*http.Request){host("127.0.0.1:9280")}},
		{"IPv6", 200, []func(*http.Request){host("[::1]:9280")}},
		{"IPv6 without a port", 200, []func(*http.Request){host("[::1]")}},
		{"HEAD", 200, []func(*http.Request){method("HEAD")}},
		{"its own fetch", 200, []func(*http.Request){header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://localhost")}},
		{"a bookmark", 200, []func(*http.Request){header("Sec-Fetch-Site", "none")}},
		{"a link", 200, []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "document")}},
		{"a rebound name", 421, []func(*http.Request){host("evil.example:9280")}},
		{"a name that begins well", 421, []func(*http.Request){host("localhost.evil.example")}},
		{"another address", 421, []func(*http.Request){host("10.9.0.1:9280")}},
		{"no name", 421, []func(*http.Request){host("")}},
		{"another origin", 403, []func(*http.Request){header("Origin", "http://evil.example")}},
		{"another port's origin", 403, []func(*http.Request){header("Origin", "http://localhost:8000")}},
		{"no origin at all", 403, []func(*http.Request){header("Origin", "null")}},
		{"a frame", 403, []func(*http.Request){header("Sec-Fetch-Site", "same-site"), header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "iframe")}},
		{"an image", 403, []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "no-cors")}},
		{"POST", 405, []func(*http.Request){method("POST")}},
		{"OPTIONS", 405, []func(*http.Request){method("OPTIONS")}},
		{"a body", 400, []func(*http.Request){func(r *http.Request) { r.ContentLength = 3 }}},
		{"chunks", 400, []func(*http.Request){func(r *http.Request) { r.ContentLength = -1 }}},
	} {
		for _, target := range []string{"/", "/api/vassals", "/style.css"} {
			w := get(t, h, target, tc.change...)
			if w.Code != tc.status {
				t.Errorf("%s, %s: status %d, want %d: %s", tc.name, target, w.Code, tc.status, w.Body)
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s, %s: the policy is %q", tc.name, target, csp)
			}
			if tc.status != 200 && strings.Contains(w.Body.String(), "<") {
				t.Errorf("%s, %s: %s", tc.name, target, w.Body)
			}
		}
	}
}

// At an address whoever is on the machine can connect: there is a key.
func TestKey(t *testing.T) {
	h, _ := newSite(t, Options{Source: fake(1), Key: "0123456789abcdef", KeyFile: "/var/lib/x/web.key"})
	for password, want := range map[string]int{"0123456789abcdef": 200, "": 401, "0123456789abcdeF": 401, "0123456789abcdef ": 401} {
		for _, target := range []string{"/", "/api/logs?name=vassal0001", "/live.js"} {
			w := get(t, h, target, func(r *http.Request) { r.SetBasicAuth("anybody", password) })
			if code := w.Code; code != want && (want != 200 || code != 404) {
				t.Errorf("%s with %q: %d, want %d", target, password, code, want)
			}
		}
	}
	w := get(t, h, "/")
	if w.Code != 401 || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") || !strings.Contains(w.Body.String(), "/var/lib/x/web.key") ||
		strings.Contains(w.Body.String(), "vassal") {
		t.Errorf("%d, %v: %s", w.Code, w.Header(), w.Body)
	}
}

// Whatever vassals are called, say and write: the pages have the elements of
// ours and no other, and text that steers nothing.
func TestHostileTexts(t *testing.T) {
	h, w := newSite(t, Options{Source: fake(3)})
	tick(w, time.Now())
	for _, target := range []string{"/", "/vassal?name=" + url.QueryEscape(evil), "/events", "/events?name=" + url.QueryEscape(evil), "/?filter=" + url.QueryEscape(evil), "/?sort=" + url.QueryEscape(evil), "/vassal?name=nobody" + url.QueryEscape(evil)} {
		answer := get(t, h, target)
		body := answer.Body.String()
		doc, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if n.Data == "img" || n.Data == "script" && (n.FirstChild != nil || len(n.Attr) == 0 || n.Attr[0].Val != "live.js") {
				t.Errorf("%s: there is a %s: %v", target, n.Data, n.Attr)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.HasPrefix(a.Val, "javascript:") {
					t.Errorf("%s: <%s %s=%q>", target, n.Data, a.Key, a.Val)
				}
			}
		}
		if strings.ContainsAny(body, "\x1b\u202e") {
			t.Errorf("%s: control characters:\n%q", target, body)
		}
		if !strings.Contains(body, "&lt;script&gt;") && !strings.Contains(body, "%3cscript%3e") && !strings.Contains(target, "sort") {
			t.Errorf("%s shows nothing of what it should escape:\n%s", target, body)
		}
	}
}

// A drop is told with the line of its rule and the question to ask about it.
func TestDropsOnPage(t *testing.T) {
	src := fake(2)
	h, _ := newSite(t, Options{Source: src})
	body := get(t, h, "/vassal?name=vassal0001").Body.String()
	for _, want := range []string{"deny any 203.0.113.0/24", ":7</small>", "out tcp 10.9.0.7 → 203.0.113.9:80", "fiefdom explain vassal0001 out tcp 203.0.113.9:80 --instance test"} {
		if !strings.Contains(body, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if body := get(t, h, "/vassal?name="+url.QueryEscape(evil)).Body.String(); strings.Contains(body, "fiefdom explain") {
		t.Error("a command with a hostile name is there to be copied")
	}
	src.Drops = func(context.Context, string) ([]tuntap.PeerDrops, error) {
		return nil, errors.New("the router is away")
	}
	h, _ = newSite(t, Options{Source: src})
	if body := get(t, h, "/vassal?name=vassal0001").Body.String(); !strings.Contains(body, "the router is away") {
		t.Error("it does not say that the router is away")
	}
}

// A vassal that is gone has a page: what happened to it is on it.
func TestGoneVassal(t *testing.T) {
	h, _ := newSite(t, Options{Source: fake(2)})
	w := get(t, h, "/vassal?name=nobody")
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "vassal died") || !strings.Contains(w.Body.String(), "no such vassal now") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if w := get(t, h, "/api/vassal?name=nobody"); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

// Filter, order and pages are in the address, and there is always a way on.
func TestTable(t *testing.T) {
	h, _ := newSite(t, Options{Source: fake(450)})
	names := func(target string) (names []string) {
		t.Helper()
		doc, err := html.Parse(get(t, h, target).Body)
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			for _, a := range n.Attr {
				if n.Data == "tr" && a.Key == "data-key" && a.Val != "fief0" {
					names = append(names, a.Val)
				}
			}
		}
		return names
	}
	for _, tc := range []struct {
		target, first, last string
		count               int
	}{
		{"/", "vassal0001", "vassal0200", 200},
		{"/?page=2", "vassal0201", "vassal0400", 200},
		{"/?page=3", "vassal0401", "", 50},
		{"/?page=99", "vassal0401", "", 50},
		{"/?page=-1", "vassal0001", "vassal0200", 200},
		{"/?rows=450", "vassal0001", "", 450},
		{"/?sort=-name&rows=3", "", "vassal0448", 3},
		{"/?sort=drops&rows=2", "vassal0449", "vassal0448", 2},
		{"/?filter=RUNning&sort=-name", "vassal0449", "vassal0250", 200},
		{"/?filter=AL042", "vassal0420", "vassal0429", 10},
		{"/?filter=AL042&page=7", "vassal0420", "vassal0429", 10},
		{"/?filter=nothing", "", "", 0},
	} {
		got := names(tc.target)
		if len(got) != tc.count || tc.first != "" && got[0] != tc.first || tc.last != "" && got[len(got)-1] != tc.last {
			t.Errorf("%s: %d rows: %.3q", tc.target, len(got), got)
		}
	}
	if body := get(t, h, "/?filter=vassal&sort=drops&page=2").Body.String(); !strings.Contains(body, `href="./?filter=vassal&amp;page=3&amp;sort=drops"`) ||
		!strings.Contains(body, `href="./?filter=vassal&amp;page=1&amp;sort=drops"`) || !strings.Contains(body, "201 to 400 of 449 (450 in all)") {
		t.Errorf("the ways on:\n%s", body)
	}
}

// The JSON is that of ps --json and the like.
func TestJSON(t *testing.T) {
	h, w := newSite(t, Options{Source: fake(3)})
	at := time.Now()
	tick(w, at.Add(-interval))
	tick(w, at)
	ask := func(target string, into any) {
		t.Helper()
		answer := get(t, h, target)
		if answer.Code != 200 || answer.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d, %s", target, answer.Code, answer.Header().Get("Content-Type"))
		}
		if err := json.Unmarshal(answer.Body.Bytes(), into); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
	}
	var all []emperor.Status
	ask("/api/vassals", &all)
	var one emperor.Status
	ask("/api/vassal?name=vassal0002", &one)
	if len(all) != 3 || one.Name != "vassal0002" || one.RxBytes != 2000 {
		t.Errorf("%d vassals, %+v", len(all), one)
	}
	var rates Rates
	ask("/api/rates?name=vassal0002", &rates)
	if rates.Seconds != 10 || len(rates.In) != 1 || len(rates.Memory) != 1 || rates.Memory[0] != 50<<20 {
		t.Errorf("%+v", rates)
	}
	ask("/api/rates", &rates)
	if len(rates.Memory) != 1 || rates.Memory[0] != 2*(50<<20) {
		t.Errorf("of all: %+v", rates)
	}
	var lines []emperor.LogLine
	ask("/api/logs?name=vassal0002&last=7", &lines)
	if len(lines) != 2 || lines[0].Text != "one of 7" {
		t.Errorf("%v", lines)
	}
	var events []emperor.Event
	ask("/api/events?name=vassal0002", &events)
	if len(events) != 1 || events[0].Fields["of"] != "vassal0002" {
		t.Errorf("%v", events)
	}
	var self emperor.Self
	ask("/api/emperor", &self)
	if self.Instance != "test" {
		t.Errorf("%+v", self)
	}
	for _, target := range []string{"/api/drops?name=vassal0002", "/api/networks"} {
		var some []any
		if ask(target, &some); len(some) != 1 {
			t.Errorf("%s: %v", target, some)
		}
	}
}

// Serve bounds what a client costs, and leaves nothing.
func TestServe(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, l, Options{Source: fake(2), Log: slog.New(slog.DiscardHandler)})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(body), "vassal0001") {
		t.Errorf("%s", body)
	}
	// Who connects and says nothing is left.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(4 * silence)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who says nothing gets %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tick makes a look, and its points, at a time.
func tick(w *watch, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take(look{at: at, vassals: w.ask(context.Background())})
	w.count()
}

// BenchmarkPage is a page of 1,000 vassals: 200 rows, and all of them.
func BenchmarkPage(b *testing.B) {
	for _, target := range []string{"/", "/?rows=1000", "/api/vassals"} {
		b.Run(target, func(b *testing.B) {
			h, w := newSite(b, Options{Source: fake(1000)})
			for i := range length {
				tick(w, time.Now().Add(time.Duration(i-length)*interval))
			}
			b.ReportAllocs()
			for b.Loop() {
				b.ReportMetric(float64(get(b, h, target).Body.Len()), "bytes")
			}
		})
	}
}
