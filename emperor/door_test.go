package emperor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func TestParseAddress(t *testing.T) {
	long := "/" + strings.Repeat("a", maxUnixPath-1)
	for text, want := range map[string]string{
		"/run/blog.sock":        "/run/blog.sock",
		"/run//x/../blog.sock":  "/run/blog.sock",
		" /run/blog.sock\nmore": "/run/blog.sock",
		"blog.sock":             "/inis/blog.sock",
		"./a:1":                 "/inis/a:1",
		"/run/a:1":              "/run/a:1",
		"@blog":                 "@blog",
		":8080":                 "0.0.0.0:8080",
		"127.0.0.1:8080\r\n":    "127.0.0.1:8080",
		"[::1]:8080":            "[::1]:8080",
		"":                      "",
		"\n/run/x":              "",
		"@":                     "",
		"localhost:80":          "",
		":0":                    "",
		":http":                 "",
		":99999":                "",
		"1.2.3.4:":              "",
		long:                    "",
		long[:maxUnixPath-1]:    long[:maxUnixPath-1],
	} {
		a, err := parseAddress(text, "/inis")
		switch {
		case want == "":
			if err == nil {
				t.Errorf("%.40q was taken for %s", text, a)
			}
		case err != nil || a.String() != want:
			t.Errorf("%.40q: %s, %v, want %s", text, a, err, want)
		default:
			if again, err := parseAddress(a.String(), "/elsewhere"); err != nil || again != a {
				t.Errorf("%.40q is not read back: %s, %v", text, again, err)
			}
		}
	}
}

func testDoor(t *testing.T, text string) *door {
	t.Helper()
	nettest.Root(t)
	a, err := parseAddress(text, "/")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(doorSpec{address: a, rights: doorRights{61200, 61201, 0o640}}, nil)
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// dial connects and closes at the test's end.
func dial(t *testing.T, a address) net.Conn {
	t.Helper()
	network := "unix"
	if a.path == "" {
		network = "tcp"
	}
	c, err := net.DialTimeout(network, a.String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDoor(t *testing.T) {
	nettest.Root(t)
	ns := nettest.NewNS(t)
	for name, text := range map[string]string{"path": sharedDir(t) + "/x.sock", "abstract": "@fiefdom-test-" + fmt.Sprint(os.Getpid()), "tcp": "127.0.0.1:4711", "tcp6": "[::1]:4711"} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			ns.Run(t, "ip", "link", "set", "lo", "up")
			ns.Do(t, func() {
				d := testDoor(t, text)
				f, err := d.stdin() // opens it, in this namespace
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Errorf("the app's socket has flags %x, %v", flags, err)
				}
				if d.waiting() {
					t.Error("nobody is there, and waits")
				}
				woken := make(chan error, 1)
				go func() { woken <- d.await(t.Context()) }()
				select {
				case err := <-woken:
					t.Fatalf("woken by nobody: %v", err)
				case <-time.After(50 * time.Millisecond):
				}
				dial(t, d.address)
				if err := <-woken; err != nil {
					t.Fatal(err)
				}
				if !d.waiting() {
					t.Error("nobody waits")
				}
				if err := d.await(t.Context()); err != nil { // who waited before is seen
					t.Error(err)
				}
				c, _, err := unix.Accept(int(f.Fd())) // the emperor has accepted nobody
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(c)
				ctx, cancel := context.WithCancel(t.Context())
				go func() { woken <- d.await(ctx) }()
				cancel()
				if err := <-woken; !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				if d.address.isFile() {
					st, err := os.Stat(d.address.path)
					if err != nil {
						t.Fatal(err)
					}
					sys := st.Sys().(*syscall.Stat_t)
					if st.Mode() != os.ModeSocket|0o640 || sys.Uid != 61200 || sys.Gid != 61201 {
						t.Errorf("%v %d:%d", st.Mode(), sys.Uid, sys.Gid)
					}
				}
				if err := d.close(); err != nil {
					t.Fatal(err)
				}
				if _, err := d.stdin(); err == nil {
					t.Error("opened after its end")
				}
				if _, err := os.Lstat(d.address.path); err == nil {
					t.Error("its file is left")
				}
			})
		})
	}
}

func TestDoorIsTheSame(t *testing.T) {
	here, there := address{path: "/run/x"}, address{path: "/run/y"}
	one, same, other := &owner{7, 8}, &owner{7, 8}, &owner{7, 9}
	for _, tc := range []struct {
		a, b doorSpec
		want bool
	}{
		{doorSpec{address: here}, doorSpec{address: here, rights: doorRights{mode: 1}}, true},
		{doorSpec{address: here}, doorSpec{address: there}, false},
		{doorSpec{address: here, as: one}, doorSpec{address: here, as: same}, true},
		{doorSpec{address: here, as: one}, doorSpec{address: here, as: other}, false},
		{doorSpec{address: here, as: one}, doorSpec{address: here}, false},
		{doorSpec{address: here}, doorSpec{address: here, as: one}, false},
	} {
		if got := newDoor(tc.a, nil).is(&tc.b); got != tc.want {
			t.Errorf("%+v, %+v: %v", tc.a, tc.b, got)
		}
	}
}

func TestDoorChangesItsRights(t *testing.T) {
	d := testDoor(t, sharedDir(t)+"/x.sock")
	rights := func() string {
		t.Helper()
		st, err := os.Stat(d.address.path)
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		return fmt.Sprintf("%d:%d %o", sys.Uid, sys.Gid, st.Mode().Perm())
	}
	if err := d.change(doorRights{1, 2, 0o600}); err != nil { // before it is open
		t.Fatal(err)
	}
	f, err := d.stdin()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := rights(); got != "1:2 600" {
		t.Error(got)
	}
	dial(t, d.address)
	if err := d.change(doorRights{3, 4, 0o666}); err != nil {
		t.Fatal(err)
	}
	if got := rights(); got != "3:4 666" || !d.waiting() {
		t.Errorf("%s; who waits is there: %v", got, d.waiting())
	}
}

// What is at a path before: a dead emperor's socket is taken over, nothing else.
func TestDoorWhereSomethingIs(t *testing.T) {
	dir := sharedDir(t)
	path := filepath.Join(dir, "x.sock")
	for _, tc := range []struct {
		name string
		make func(t *testing.T)
		want string // in the error; empty: it opens
	}{
		{"nothing", func(*testing.T) {}, ""},
		{"a socket that nobody listens at", func(t *testing.T) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}, ""},
		{"somebody's socket", func(t *testing.T) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "somebody else listens"},
		{"a file", func(t *testing.T) { write(t, path, "precious") }, "no socket"},
		{"a link", func(t *testing.T) {
			if err := os.Symlink(filepath.Join(dir, "other.sock"), path); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		{"a directory", func(t *testing.T) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Cleanup(func() { os.RemoveAll(path) })
			tc.make(t)
			before, _ := os.Lstat(path)
			d := testDoor(t, path)
			f, err := d.stdin()
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
				dial(t, d.address)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if err := d.close(); err != nil {
				t.Error(err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what was there: %v", err)
			}
		})
	}
}

// A tenant's door is made and removed with his rights only.
func TestDoorOfATenant(t *testing.T) {
	dir := sharedDir(t)
	own, roots := filepath.Join(dir, "own"), filepath.Join(dir, "roots")
	for path, uid := range map[string]int{own: 61200, roots: 0} {
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chown(path, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(roots, filepath.Join(own, "link")); err != nil {
		t.Fatal(err)
	}
	tenant := func(t *testing.T, path string) *door {
		d := testDoor(t, path)
		d.as = &owner{61200, 61200}
		return d
	}
	t.Run("elsewhere", func(t *testing.T) {
		for _, path := range []string{roots + "/x.sock", own + "/link/x.sock", "/run/x.sock"} {
			if f, err := tenant(t, path).stdin(); !errors.Is(err, unix.EACCES) {
				t.Errorf("%s: %v, %v", path, f, err)
			}
		}
	})
	t.Run("another's socket is not removed", func(t *testing.T) {
		victim := filepath.Join(roots, "victim.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: victim})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if _, err := tenant(t, own+"/link/victim.sock").stdin(); !errors.Is(err, unix.EACCES) {
			t.Errorf("%v", err)
		}
		if _, err := os.Lstat(victim); err != nil {
			t.Error(err)
		}
	})
	t.Run("at home", func(t *testing.T) {
		d := tenant(t, own+"/x.sock")
		f, err := d.stdin()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if st, err := os.Stat(d.address.path); err != nil || st.Sys().(*syscall.Stat_t).Uid != 61200 {
			t.Errorf("%v, %v", st, err)
		}
		// His folder becomes a link to root's, with something of that name in it.
		if err := errors.Join(os.Rename(own, own+".away"), os.Symlink(roots, own), os.Rename(filepath.Join(own+".away", "x.sock"), filepath.Join(roots, "x.sock"))); err != nil {
			t.Fatal(err)
		}
		if err := d.close(); !errors.Is(err, unix.EACCES) {
			t.Errorf("%v", err)
		}
		if _, err := os.Lstat(filepath.Join(roots, "x.sock")); err != nil {
			t.Error(err)
		}
	})
	// Nobody of the emperor's own threads has kept his rights.
	for range 50 {
		done := make(chan error)
		go func() { done <- os.WriteFile(filepath.Join(roots, "proof"), nil, 0o600) }()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
