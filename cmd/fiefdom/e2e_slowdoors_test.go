package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fiefdom/emperor"
)

// manners are what clients do that mean no good, until they are hung up on.
var manners = map[string]func(net.Conn) error{
	"says nothing": func(net.Conn) error { return nil },
	"a byte a second": func(c net.Conn) error {
		for _, b := range []byte("GET /vassals HTTP/1.1\r\nHost: localhost\r\n\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				return err
			}
			time.Sleep(time.Second) // that is its way
		}
		return nil
	},
	"garbage": func(c net.Conn) error {
		_, err := c.Write([]byte(strings.Repeat("\xff\x00 \r\n", 20_000)))
		return err
	},
}

// T53, T09: whoever says nothing, too little, or nonsense is hung up on soon, and
// others are served meanwhile.
func TestSlowClientsAtTheDoors(t *testing.T) {
	t.Parallel()
	r := newRealm(t, doorsEmperor, map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	r.othersAreServed(blog)
	r.awaitNames(blog)
	files := r.openFiles()
	var clients sync.WaitGroup
	var mu sync.Mutex
	longest := map[string]time.Duration{}
	for path := range ownDoors {
		if slices.Contains([]string{"router.sock", "vault.sock"}, path[strings.LastIndexByte(path, '/')+1:]) {
			continue // root's alone, one after the other
		}
		kind := "unix"
		if strings.HasSuffix(path, "exec.sock") {
			kind = "unixpacket"
		}
		for name, behave := range manners {
			if name == "says nothing" && strings.HasSuffix(path, "fief0.sock") {
				continue // a peer need not send: there are 256 of those at most
			}
			for range 20 {
				c, err := net.Dial(kind, r.Path(path))
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				clients.Go(func() {
					defer c.Close()
					go func() { _ = behave(c) }() // until it is closed
					_ = c.SetReadDeadline(began.Add(time.Minute))
					_, err := io.Copy(io.Discard, c)
					mu.Lock()
					defer mu.Unlock()
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s: who %s stays for a minute", path, name)
					}
					longest[path] = max(longest[path], time.Since(began))
				})
			}
		}
	}
	served := 0
	over := make(chan struct{})
	go func() { clients.Wait(); close(over) }()
	for done := false; !done; {
		r.othersAreServed(blog)
		served++
		select {
		case <-over:
			done = true
		default:
		}
	}
	t.Logf("%d rounds; the longest stays: %v", served, longest)
	r.awaitFiles(files)
	if served < 2 {
		t.Errorf("only %d rounds beside them", served)
	}
	for path, d := range longest {
		if d > 25*time.Second*time.Duration(slowness()) {
			t.Errorf("%s: somebody stayed for %v", path, d)
		}
	}
}

// othersAreServed asks at the doors as one who means well.
func (r *realm) othersAreServed(blog emperor.Status) {
	r.t.Helper()
	began := time.Now()
	r.mustRun("ps")
	r.mustRun("exec", "blog", "--", "true")
	for _, path := range []string{"/run/t/emperor-stats", "/run/fiefdom/emperor/stats.sock"} {
		if text := r.readAll(path, ""); !strings.HasPrefix(text, "{") {
			r.t.Errorf("%s says %q", path, text)
		}
	}
	for _, path := range []string{"/run/t/web", "/run/t/metrics"} {
		page := map[string]string{"/run/t/web": "/", "/run/t/metrics": "/metrics"}[path]
		if text := r.readAll(path, "GET "+page+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(text, "HTTP/1.1 200") {
			r.t.Errorf("%s says %.200q", path, text)
		}
	}
	if !r.answers(blog.Addresses[0]) {
		r.t.Error("the vassal is not reached")
	}
	if took := time.Since(began); took > 5*time.Second*time.Duration(slowness()) {
		r.t.Errorf("others waited for %v", took)
	}
}

// readAll is what a socket says to a question.
func (r *realm) readAll(path, question string) string {
	r.t.Helper()
	c, err := net.Dial("unix", r.Path(path))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.WriteString(c, question); question != "" && err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return fmt.Sprintf("%s%v", text, err)
	}
	return string(text)
}
