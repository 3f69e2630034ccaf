package emperor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// as asks the API under another uid, by curl, since threads share a uid.
func (r *realm) as(t *testing.T, uid int, method, path string) (int, string) {
	t.Helper()
	curl := nettest.Program(t, "curl")
	cmd := exec.CommandContext(t.Context(), curl, "-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket", r.Instance.Path(APISocket), "http://emperor"+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	i := strings.LastIndexByte(string(out), '\n')
	var code int
	if _, err := fmt.Sscan(string(out[i+1:]), &code); err != nil {
		t.Fatal(err)
	}
	return code, string(out[:i])
}

func TestUIDDecides(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "his", stays)
	r.write(t, "other", stays)
	if err := os.Chown(filepath.Join(r.dir, "his.ini"), 61200, 61200); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "other", Running)
	r.await(t, "his", "its owner's", func(s Status) bool {
		code, _ := r.as(t, 61200, "GET", "/vassals/his")
		return s.State == Running && code == http.StatusOK
	})
	for _, tc := range []struct {
		uid          int
		method, path string
		code         int
	}{
		{61200, "GET", "/vassals/his", 200},
		{61200, "GET", "/vassals/his/logs", 200},
		{61200, "POST", "/vassals/his/restart", 200},
		{61200, "GET", "/vassals/other", 404},
		{61200, "GET", "/vassals/other/logs", 404},
		{61200, "POST", "/vassals/other/stop", 404},
		{61200, "POST", "/vassals/other/reload", 404},
		{61201, "POST", "/vassals/his/stop", 404},
		{61201, "GET", "/vassals/his", 404},
		{0, "GET", "/vassals/his", 200},
		{0, "GET", "/vassals/other", 200},
		{0, "GET", "/vassals/nobody", 404},
		{0, "GET", "/nothing", 404},
		{0, "GET", "/vassals/his/stop", 405},
		{0, "POST", "/vassals", 405},
	} {
		if code, body := r.as(t, tc.uid, tc.method, tc.path); code != tc.code {
			t.Errorf("uid %d, %s %s: %d, want %d: %s", tc.uid, tc.method, tc.path, code, tc.code, body)
		}
	}
	for uid, want := range map[int]string{0: "his other", 61200: "his", 61201: ""} {
		_, body := r.as(t, uid, "GET", "/vassals")
		var all []Status
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range all {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("uid %d sees %q, want %q", uid, got, want)
		}
	}
	if s := r.awaitState(t, "other", Running); s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
}

// The schema of ps --json is a promise.
func TestStatusSchema(t *testing.T) {
	b, err := json.Marshal((&member{name: "blog", backoff: newBackoff(&Config{}), state: Stopped, uid: -1}).status())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "file", "state", "pid", "uid", "addresses", "restarts", "since", "rx_bytes", "tx_bytes", "drops", "error", "loyal", "accepting", "starts", "backoff_seconds"} {
		if v, ok := got[key]; !ok || v == nil {
			t.Errorf("%s is %v", key, v)
		}
	}
	if _, ok := got["addresses"].([]any); !ok {
		t.Errorf("addresses: %v", got["addresses"])
	}
	if _, ok := got["drops"].(map[string]any); !ok {
		t.Errorf("drops: %v", got["drops"])
	}
}

func TestTrafficIsAdded(t *testing.T) {
	r := newRealm(t, func(e *Emperor) {
		e.Traffic = func(context.Context) (map[string]Traffic, error) {
			return map[string]Traffic{"blog": {RxBytes: 5, TxBytes: 6, Drops: map[string]uint64{"rule": 7}}}, nil
		}
	})
	r.write(t, "blog", stays)
	if s := r.awaitState(t, "blog", Running); s.RxBytes != 5 || s.TxBytes != 6 || s.Drops["rule"] != 7 {
		t.Errorf("%+v", s)
	}
}

func TestLogs(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sh -c 'echo one; read x </dev/zero; sleep 1000'\n")
	r.write(t, "bad", "[uwsgi]\n")
	r.awaitState(t, "bad", Invalid)
	r.awaitState(t, "blog", Running)
	nettest.Eventually(t, 10*time.Second, "its line", func() bool {
		var text strings.Builder
		if err := r.Logs(t.Context(), "blog", false, &text); err != nil {
			t.Fatal(err)
		}
		return text.String() == "one\n"
	})
	var none strings.Builder
	if err := r.Logs(t.Context(), "bad", false, &none); err != nil || none.String() != "" {
		t.Errorf("%q, %v", none.String(), err)
	}
	if err := r.Logs(t.Context(), "nobody", false, &none); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// Following: a new line comes by itself; the vassal's end ends it.
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- r.Logs(t.Context(), "blog", true, pw)
		pw.Close()
	}()
	follow := bufio.NewReader(pr)
	if line, err := follow.ReadString('\n'); line != "one\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := r.Do(t.Context(), "blog", "restart"); err != nil {
		t.Fatal(err)
	}
	if line, err := follow.ReadString('\n'); line != "one\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := os.Remove(filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(follow); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestClientWithoutEmperor(t *testing.T) {
	if _, err := NewClient(t.TempDir()).List(t.Context()); err == nil || !strings.Contains(err.Error(), "ask the emperor") {
		t.Errorf("%v", err)
	}
}

// Connections are bounded by uid: who holds all of his keeps nobody else out.
func TestListenerBoundsEachUID(t *testing.T) {
	l := newCallers(nil, 100, nil)
	for i := range callerConns {
		if !l.take(61200) {
			t.Fatalf("connection %d was refused", i)
		}
	}
	if l.take(61200) {
		t.Error("one too many")
	}
	if !l.take(61201) {
		t.Error("a neighbour is kept out")
	}
	for range 10 * apiClients {
		if !l.take(0) {
			t.Fatal("root is kept out")
		}
	}
	l.give(61200)
	if !l.take(61200) {
		t.Error("a place that was given back is lost")
	}
	// Nor do many uids of somebody's keep root out, or cost more than so much.
	for uid := range uint32(65536) {
		l.take(100000 + uid)
	}
	if l.others != 100 || !l.take(0) {
		t.Errorf("%d connections of others, and root is kept out", l.others)
	}
	l.give(61200)
	if !l.take(300000) {
		t.Error("a place that was given back is lost to others")
	}
}

func TestListenerGivesPlacesBack(t *testing.T) {
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	l := newCallers(inner, 100, nil)
	defer l.Close()
	c, err := net.Dial("unix", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := peerUID(s); int(got) != os.Getuid() {
		t.Errorf("uid %d", got)
	}
	s.Close()
	s.Close()
	if len(l.held) != 0 {
		t.Errorf("held: %v", l.held)
	}
}

func TestRequestsHaveNoBody(t *testing.T) {
	r := newRealm(t, nil)
	c, err := net.Dial("unix", r.Instance.Path(APISocket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /vassals/blog/stop HTTP/1.1\r\nHost: emperor\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(2 * apiSilence)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", b, err)
	}
}

// A client that does not read does not hold its handler for ever.
func TestSilentClient(t *testing.T) {
	handler := brisk(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		for range 1000 {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
		t.Error("64 MB were taken by nobody")
	}))
	server := httptest.NewServer(handler)
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: emperor\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // the handler is at work
		t.Fatal(err)
	}
	server.Close() // waits for the handler
}
