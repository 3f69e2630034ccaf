package emperor

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// address is where a door is: a path, an abstract name or a TCP port, in the
// emperor's own namespaces.
type address struct {
	path string // absolute; an abstract name begins with "@"; empty: TCP
	tcp  netip.AddrPort
}

// maxUnixPath is what a socket's address holds, in bytes, with its NUL (unix(7)).
const maxUnixPath = 108

// parseAddress reads an address as uWSGI's emperor does: its first line, TCP if
// it has a colon, else a path. What begins with a slash or a dot is always a
// path; one that is not absolute begins in dir.
func parseAddress(text, dir string) (address, error) {
	text = firstWord(text)
	const want = "want a path, @NAME, ADDRESS:PORT or :PORT"
	switch {
	case text == "":
		return address{}, errors.New("no address; " + want)
	case strings.ContainsAny(text[:1], "/."), !strings.Contains(text, ":"):
		a := address{path: text}
		if text[0] != '@' {
			if !filepath.IsAbs(text) {
				text = filepath.Join(dir, text)
			}
			a.path = filepath.Clean(text)
		}
		if a.path == "@" || len(a.path) >= maxUnixPath {
			return address{}, fmt.Errorf("%.120q: the name of a socket has 1 to %d bytes", text, maxUnixPath-1)
		}
		return a, nil
	case text[0] == ':':
		text = "0.0.0.0" + text
	}
	tcp, err := netip.ParseAddrPort(text)
	if err != nil || tcp.Port() == 0 {
		return address{}, fmt.Errorf("%.120q is no address; %s", text, want)
	}
	return address{tcp: tcp}, nil
}

// firstWord is what stands before the first control character.
func firstWord(text string) string {
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' }); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSpace(text)
}

// String is the address as it is written; parseAddress reads it back.
func (a address) String() string {
	if a.path != "" {
		return a.path
	}
	return a.tcp.String()
}

// isFile says whether the address is in the file system.
func (a address) isFile() bool { return a.path != "" && a.path[0] != '@' }

func (a address) sockaddr() (family int, sa unix.Sockaddr) {
	switch {
	case a.path != "":
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.path} // "@" is the NUL of an abstract name here
	case a.tcp.Addr().Is4():
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.tcp.Port()), Addr: a.tcp.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.tcp.Port()), Addr: a.tcp.Addr().As16()}
}
