package unixsock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// at opens a socket of a kind that is bound to path, and closes it at the end.
func at(t *testing.T, kind int, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if path != "" {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// Only a socket that nobody has any more is removed, and never a busy one.
func TestRemoveStale(t *testing.T) {
	for name, tc := range map[string]struct {
		lay  func(t *testing.T, path string)
		want string // of the error
	}{
		"nothing":            {func(*testing.T, string) {}, ""},
		"left":               {func(t *testing.T, path string) { unix.Close(at(t, unix.SOCK_STREAM, path)) }, ""},
		"bound":              {func(t *testing.T, path string) { at(t, unix.SOCK_STREAM, path) }, ""},
		"a datagram socket":  {func(t *testing.T, path string) { at(t, unix.SOCK_DGRAM, path) }, "a socket is there already"},
		"listening":          {func(t *testing.T, path string) { listen(t, path) }, "somebody else listens"},
		"with a full queue":  {func(t *testing.T, path string) { listen(t, path); fill(t, path) }, "somebody else listens"},
		"a file":             {func(t *testing.T, path string) { os.WriteFile(path, nil, 0o600) }, "no socket"},
		"a link to a socket": {func(t *testing.T, path string) { listen(t, path+".s"); os.Symlink(path+".s", path) }, "no socket"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			tc.lay(t, path)
			err := RemoveStale(path)
			_, there := os.Lstat(path)
			switch {
			case tc.want == "" && (err != nil || there == nil):
				t.Errorf("%v; is there: %v", err, there == nil)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || there != nil):
				t.Errorf("%v, want %q; is there: %v", err, tc.want, there == nil)
			}
		})
	}
}

func listen(t *testing.T, path string) {
	t.Helper()
	fd := at(t, unix.SOCK_STREAM, path)
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
}

// fill connects until the listener's queue is full.
func fill(t *testing.T, path string) {
	t.Helper()
	for range 100 {
		if err := unix.Connect(at(t, unix.SOCK_STREAM, ""), &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return
		}
	}
	t.Fatal("its queue has no end")
}
