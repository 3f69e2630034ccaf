package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// webServer is a command that serves HTTP on the socket that it has as its
// descriptor 0. It ends when nobody has come for a while, and on request dies
// after an answer.
const webServer = `import os, select, signal, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
token = os.urandom(4).hex().encode() # in a namespace of its own each has the same pid
class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b'%d-%s %s\n' % (os.getpid(), token, os.environ.get('LOAD', '').encode()))
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

// knock connects to an on demand vassal, at a path or at HOST:PORT of the host.
func (r *realm) knock(address string) (c net.Conn, err error) {
	if strings.HasPrefix(address, "/") {
		return net.DialTimeout("unix", r.Path(address), patience)
	}
	network := "tcp"
	if address[0] == '@' {
		network = "unix"
	}
	err = netns.Do(r.Host.Handle, func() error {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	return c, err
}

// page asks an on demand vassal for a page.
func (r *realm) page(address, path string) (string, error) {
	dial := func(context.Context, string, string) (net.Conn, error) { return r.knock(address) }
	client := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	text, err := bodyOf(client.Get("http://vassal" + path))
	return strings.TrimSpace(text), err
}

func (r *realm) mustPage(address, path string) string {
	r.t.Helper()
	text, err := r.page(address, path)
	if err != nil {
		r.t.Fatalf("ask %s for %s: %v", address, path, err)
	}
	return text
}

// crowd are visitors who ask for pages, one after another each; one who is not
// answered fails the test.
type crowd struct {
	t    *testing.T
	got  atomic.Int64 // pages
	done chan struct{}
	wg   sync.WaitGroup
}

func (r *realm) crowd(t *testing.T, n int, address string) *crowd {
	c := &crowd{t: t, done: make(chan struct{})}
	for range n {
		c.wg.Go(func() {
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-c.done:
					return
				case <-pace.C:
				}
				if _, err := r.page(address, "/"); err != nil {
					t.Errorf("visitor %d of %s: %v", c.got.Load(), address, err)
					return
				}
				c.got.Add(1)
			}
		})
	}
	return c
}

// more waits until some more of them have been answered.
func (c *crowd) more() {
	c.t.Helper()
	want := c.got.Load() + 50
	nettest.Eventually(c.t, patience, "more visitors are answered", func() bool { return c.got.Load() >= want })
}

func (c *crowd) leave() { close(c.done); c.wg.Wait() }

// The three forms, each kind of address, a command as the app.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]struct{ emperor, sidecar, address string }{
		"extension, path": {"emperor-on-demand-extension = .socket", "/run/t/doors/blog.socket", "/run/t/doors/blog.socket"},
		"ext, abstract":   {"emperor-on-demand-ext = .socket", "@blog", "@blog"},
		"ext, port":       {"emperor-on-demand-ext = .socket", ":8080", "127.0.0.1:8080"},
		"directory":       {"emperor-on-demand-directory = /run/t/doors", "", "/run/t/doors/blog.socket"},
		"pid namespace":   {"emperor-on-demand-directory = /run/t/doors\nemperor-use-clone = pid,fs,ipc,uts,net", "", "/run/t/doors/blog.socket"},
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
			visitors := r.crowd(t, 2, form.address)
			for load := 2; load < 5; load++ {
				r.drop("blog", blog(load))
				nettest.Eventually(t, patience, fmt.Sprintf("load %d answers", load), func() bool {
					text, err := r.page(form.address, "/")
					return err == nil && strings.HasSuffix(text, fmt.Sprint(" ", load))
				})
				r.mustPage(form.address, "/die")
			}
			visitors.more()
			visitors.leave()
			r.stop(syscall.SIGTERM)
		})
	}
}

// A real uwsgi finds the socket as its descriptor 0, whether its ini names the
// same address, or only the protocol. It falls asleep by die-on-idle, and no
// request is lost whatever it does.
func TestRealUwsgiOnDemand(t *testing.T) {
	t.Parallel()
	for name, listen := range map[string]string{
		"its own option": "http-socket = /run/t/doors/app.socket\nchmod-socket = 660\nchown-socket = 1501:1502\n",
		"a protocol":     "protocol = http\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const door = "/run/t/doors/app.socket"
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-directory = /run/t/doors\n")
			r.Run(t, "mkdir", "/run/t/doors")
			load := func(n int) { r.write("/run/t/app.pl", strings.ReplaceAll(perlApp, "LOADED", fmt.Sprint(n))) }
			load(1)
			ini := "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\ndisable-logging = true\nmaster = true\nprocesses = 2\nvacuum = true\nidle = 1\ndie-on-idle = true\nuid = 1501\ngid = 1501\n" + listen
			r.drop("app", ini)
			r.start()
			r.awaitState("app", emperor.Sleeping)
			want := "srw-rw-rw- 1501 1501\n"
			if strings.Contains(listen, "chmod-socket") {
				want = "srw-rw---- 1501 1502\n"
			}
			rights := func() string { return r.Run(t, "stat", "-c", "%A %u %g", door) }
			if got := rights(); got != want {
				t.Errorf("asleep its socket is %q, want %q", got, want)
			}
			for n := range 3 {
				if text := r.mustPage(door, "/"); text != "load 1" {
					t.Errorf("%q", text)
				}
				if up := r.awaitState("app", emperor.Running); up.Restarts != n {
					t.Errorf("awake for the %dth time: %+v", n+1, up)
				}
				r.awaitState("app", emperor.Sleeping)
			}
			visitors := r.crowd(t, 2, door)
			answers := func(n int, what string) {
				t.Helper()
				nettest.Eventually(t, patience, what, func() bool {
					text, err := r.page(door, "/")
					return err == nil && text == fmt.Sprint("load ", n)
				})
			}
			// A uwsgi that has just begun does not hear all of what it is told.
			answered := func(n int, what string) {
				t.Helper()
				answers(n, what)
				visitors.more()
			}
			answered(1, "it is awake")
			before := r.awaitState("app", emperor.Running)
			load(2)
			r.Run(t, "touch", iniPath("app"))
			answered(2, "it reloads itself")
			load(3)
			r.drop("app", strings.Replace(ini, "processes = 2", "processes = 3", 1))
			answered(3, "it reloads itself with its new option")
			if s := r.awaitState("app", emperor.Running); s.PID != before.PID {
				t.Errorf("%+v", s)
			}
			load(4)
			r.mustRun("restart", "app")
			answered(4, "it is restarted")
			visitors.more()
			visitors.leave()
			r.kill(r.awaitState("app", emperor.Running).PID)
			answers(4, "it is back after its death")
			if got := rights(); got != want {
				t.Errorf("in the end its socket is %q, want %q", got, want)
			}
			if log, err := os.ReadFile(r.log); err != nil || strings.Contains(string(log), "did not stop in time") {
				t.Errorf("it had to be killed: %v", err)
			}
			r.awaitState("app", emperor.Sleeping)
			r.stop(syscall.SIGTERM)
		})
	}
}

// What an operator does with on demand vassals, as he would do it.
func TestOperatingOnDemand(t *testing.T) {
	t.Parallel()
	const door = "/run/t/doors/blog.socket"
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+
		"emperor-on-demand-directory = /run/t/doors\nemperor-on-demand-chmod-socket = 660\nemperor-on-demand-chown-socket = :www-data\n")
	r.Run(t, "mkdir", "/run/t/doors")
	r.write("/run/t/web.py", webServer)
	blog := "[uwsgi]\ncommand = /usr/bin/python3 /run/t/web.py\nenv = IDLE=1000\n"
	r.drop("blog", blog)
	r.start()
	r.awaitState("blog", emperor.Sleeping)
	if out := r.mustRun("ps"); !strings.Contains(out, "blog  sleeping") {
		t.Errorf("ps:\n%s", out)
	}
	if out := r.mustRun("status", "blog"); !strings.Contains(out, "state: sleeping") || !strings.Contains(out, "socket: "+door) {
		t.Errorf("status:\n%s", out)
	}
	rights := r.Run(t, "stat", "-c", "%A %u %G", door)
	if out := r.mustRun("start", "blog"); out != "blog is running\n" {
		t.Errorf("start: %q", out)
	}
	if want := fmt.Sprintf("srw-rw---- %d www-data\n", r.ps("blog").UID); rights != want {
		t.Errorf("its socket is %q, want %q", rights, want)
	}
	r.mustPage(door, "/")
	if out := r.mustRun("stop", "blog"); out != "blog is stopped\n" {
		t.Errorf("stop: %q", out)
	}
	there := func() bool { _, err := os.Lstat(r.Path(door)); return err == nil }
	nettest.Eventually(t, patience, "the socket of a stopped vassal is gone", func() bool { return !there() })
	if out := r.mustRun("reload", "blog"); out != "blog is sleeping\n" || !there() {
		t.Errorf("reload of a stopped vassal: %q, its socket is there: %v", out, there())
	}

	r.remove("blog")
	nettest.Eventually(t, patience, "the socket goes with the ini", func() bool { return !there() })
	r.drop("blog", blog)
	r.awaitState("blog", emperor.Sleeping)

	// One socket wakes one vassal; what is in the way is said, and stays.
	r.write("/run/t/doors/file.socket", "precious")
	r.drop("file", blog)
	if s := r.awaitState("file", emperor.Backoff); !strings.Contains(s.Error, "file.socket") || r.read("/run/t/doors/file.socket") != "precious" {
		t.Errorf("%+v", s)
	}
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitOK {
		t.Errorf("check: %d\n%s", code, out)
	}
	r.stop(syscall.SIGTERM)
	if there() {
		t.Error("the socket outlived the emperor")
	}
}

// In tyrant mode an owner's file says where his socket is, and the emperor
// makes it with his rights: nothing elsewhere can be made, taken or removed.
func TestTenantsOnDemand(t *testing.T) {
	t.Parallel()
	const owner = 2001
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nemperor-on-demand-extension = .socket\n")
	r.Run(t, "sh", "-e", "-c", `mkdir /run/t/own /run/t/roots
chown 2001:2001 /run/t/own
ln -s /run/t/roots /run/t/own/link
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/t/roots/left.socket")'
echo /run/t/own/shadow.socket >/run/t/secret; chmod 600 /run/t/secret`)
	r.write("/run/t/web.py", webServer)
	ini := "[uwsgi]\ncommand = /usr/bin/python3 /run/t/web.py\nenv = IDLE=1000\n"
	place := func(name, address string) {
		r.writeAs(iniPath(name)+".socket", address+"\n", owner, owner)
		r.writeAs(iniPath(name), ini, owner, owner)
	}
	place("good", "/run/t/own/good.socket")
	refused := map[string]struct{ address, want string }{
		"port":     {":22", "tyrant"},
		"abstract": {"@taken", "tyrant"},
		"same":     {"/run/t/own/good.socket", "good.ini"},
		"roots":    {"/run/t/roots/mine.socket", "permission denied"},
		"link":     {"/run/t/own/link/mine.socket", "permission denied"},
		"left":     {"/run/t/roots/left.socket", "permission denied"},
		"api":      {"/run/fiefdom/emperor/api.sock", ""},
		"file":     {"/run/t/secret", "no socket"},
	}
	r.start()
	r.awaitState("good", emperor.Sleeping)
	for name, tt := range refused {
		place(name, tt.address)
	}
	r.Run(t, "ln", "-s", "/run/t/secret", iniPath("secret")+".socket")
	r.writeAs(iniPath("secret"), ini, owner, owner)
	refused["secret"] = struct{ address, want string }{"", "permission denied"}
	for name, tt := range refused {
		r.await(name, "is refused", func(s emperor.Status) bool {
			return (s.State == emperor.Invalid || s.State == emperor.Backoff) && strings.Contains(s.Error, tt.want)
		})
	}
	if text := r.mustPage("/run/t/own/good.socket", "/"); text == "" {
		t.Error("no answer")
	}
	if out := r.Run(t, "stat", "-c", "%u %g", "/run/t/own/good.socket"); out != "2001 2001\n" {
		t.Errorf("its socket is of %s", out)
	}
	if out := r.Run(t, "ls", "/run/t/roots"); out != "left.socket\n" {
		t.Errorf("in root's folder: %q", out)
	}
	r.stop(syscall.SIGTERM)
}
