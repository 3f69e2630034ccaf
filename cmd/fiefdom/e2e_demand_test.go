package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// webServer is a command that serves HTTP on the socket that it has as its
// descriptor 0. It ends when nobody has come for a while, and on request dies
// after an answer.
const webServer = `import os, select, signal, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
last = False
class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b'%d %s\n' % (os.getpid(), os.environ.get('LOAD', '').encode()))
        self.wfile.flush()
        if self.path == '/die': self.connection.shutdown(socket.SHUT_RDWR); os._exit(3)
    def log_message(self, *words): pass
server = HTTPServer(('', 0), Page, bind_and_activate=False)
server.socket = socket.socket(fileno=0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
while True:
    # The signal to stop comes between requests only.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    ready = select.select([0], [], [], float(os.environ['IDLE']))[0]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if not ready: sys.exit(0)
    server.handle_request()
`

// page asks an on demand vassal for a page, at a path or at HOST:PORT of the host.
func (r *realm) page(address, path string) (string, error) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		if strings.HasPrefix(address, "/") {
			return net.DialTimeout("unix", r.Path(address), patience)
		}
		network := "tcp"
		if address[0] == '@' {
			network = "unix"
		}
		var c net.Conn
		err := netns.Do(r.Host.Handle, func() (err error) {
			c, err = net.DialTimeout(network, address, patience)
			return err
		})
		return c, err
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://vassal" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return strings.TrimSpace(string(out)), err
}

func (r *realm) mustPage(address, path string) string {
	r.t.Helper()
	text, err := r.page(address, path)
	if err != nil {
		r.t.Fatalf("ask %s for %s: %v", address, path, err)
	}
	return text
}

// visitors ask for pages without a pause until the returned function is called,
// which says how many they got; whoever is not answered fails the test.
func (r *realm) visitors(n int, address string) (stop func() int64) {
	var wg sync.WaitGroup
	var got atomic.Int64
	done := make(chan struct{})
	for range n {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := r.page(address, "/"); err != nil {
					r.t.Errorf("visitor %d of %s: %v", got.Load(), address, err)
					return
				}
				got.Add(1)
			}
		})
	}
	return func() int64 { close(done); wg.Wait(); return got.Load() }
}

// The three forms, each kind of address, a command as the app.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]struct{ emperor, sidecar, address string }{
		"extension, path": {"emperor-on-demand-extension = .socket", "/run/t/doors/blog.socket", "/run/t/doors/blog.socket"},
		"ext, abstract":   {"emperor-on-demand-ext = .socket", "@blog", "@blog"},
		"ext, port":       {"emperor-on-demand-ext = .socket", ":8080", "127.0.0.1:8080"},
		"directory":       {"emperor-on-demand-directory = /run/t/doors", "", "/run/t/doors/blog.socket"},
		"exec":            {"emperor-on-demand-exec = printf '/run/t/doors/%%s.s\\n'", "", "/run/t/doors/blog.ini.s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+form.emperor+"\n")
			r.Run(t, "ip", "link", "set", "lo", "up")
			r.Run(t, "mkdir", "/run/t/doors")
			r.write("/run/t/web.py", webServer)
			if form.sidecar != "" {
				r.write(iniPath("blog")+".socket", form.sidecar+"\n")
			}
			blog := func(load int) string {
				return fmt.Sprintf("[uwsgi]\ncommand = /usr/bin/python3 /run/t/web.py\nenv = IDLE=1\nenv = LOAD=%d\n", load)
			}
			r.drop("blog", blog(1))
			r.start()
			r.mustRun("reload", "blog") // waits until its socket is there
			s := r.awaitState("blog", emperor.Sleeping)
			if s.PID != 0 || s.Socket == "" || len(s.Addresses) != 0 {
				t.Errorf("asleep: %+v", s)
			}
			first := r.mustPage(form.address, "/")
			up := r.awaitState("blog", emperor.Running)
			if !strings.HasSuffix(first, " 1") || len(up.Addresses) != 1 {
				t.Errorf("%q, %+v", first, up)
			}
			r.awaitState("blog", emperor.Sleeping) // by itself
			if second := r.mustPage(form.address, "/die"); second == first {
				t.Errorf("%q, as before it slept", second)
			}
			if again := r.mustPage(form.address, "/"); again == first {
				t.Errorf("%q, as before it died", again)
			}
			if now := r.awaitState("blog", emperor.Running); now.Addresses[0] != up.Addresses[0] || now.UID != up.UID {
				t.Errorf("awake again it is another: %+v, before %+v", now, up)
			}
			stop := r.visitors(2, form.address)
			for load := 2; load < 5; load++ {
				r.drop("blog", blog(load))
				nettest.Eventually(t, patience, fmt.Sprintf("load %d answers", load), func() bool {
					text, err := r.page(form.address, "/")
					return err == nil && strings.HasSuffix(text, fmt.Sprint(" ", load))
				})
				r.mustPage(form.address, "/die")
			}
			if n := stop(); n < 10 {
				t.Errorf("only %d visitors", n)
			}
			r.stop(syscall.SIGTERM)
		})
	}
}
