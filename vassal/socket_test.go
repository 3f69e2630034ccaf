package vassal

import (
	"slices"
	"strings"
	"testing"
)

func TestSocketRights(t *testing.T) {
	number := func(n *int) int {
		if n == nil {
			return -1
		}
		return *n
	}
	for text, want := range map[string][2]int{
		"root": {0, -1}, "0": {0, -1}, "root:root": {0, 0}, ":root": {-1, 0}, "7:8": {7, 8}, "7:": {7, -1},
	} {
		var r SocketRights
		if err := r.SetOwner(text); err != nil || number(r.UID) != want[0] || number(r.GID) != want[1] {
			t.Errorf("%q: %d:%d, %v", text, number(r.UID), number(r.GID), err)
		}
	}
	for _, text := range []string{"", ":", "no-such-user", ":no-such-group", "-1", "4294967295", "0:-1"} {
		if err := new(SocketRights).SetOwner(text); err == nil {
			t.Errorf("owner %q was taken", text)
		}
	}
	for text, want := range map[string]uint32{"660": 0o660, "": 0o666, "true": 0o666, "0": 0} {
		var r SocketRights
		if err := r.SetMode(text); err != nil || *r.Mode != want {
			t.Errorf("mode %q: %v, %v", text, r.Mode, err)
		}
	}
	for _, text := range []string{"999", "1777", "rw", "-1"} {
		if err := new(SocketRights).SetMode(text); err == nil {
			t.Errorf("mode %q was taken", text)
		}
	}
	big, wrong := uint32(0o1777), -1
	for _, r := range []SocketRights{{Mode: &big}, {UID: &wrong}, {GID: &wrong}} {
		c := good(t, "command = /bin/true\n")
		c.Socket = r
		if !c.Validate().Failed() {
			t.Errorf("%+v is valid", r)
		}
	}
}

// A uwsgi listens at descriptor 0 where its ini says that it listens at the
// address of the socket that it has there, and nowhere else.
func TestBehind(t *testing.T) {
	own := func(value string) bool { return value == "/run/x" || value == ":80" }
	for ini, want := range map[string]string{
		"psgi = a.pl\n":                                        "psgi=a.pl",
		"psgi = a.pl\nsocket = /run/x\n":                       "psgi=a.pl socket=fd://0",
		"psgi = a.pl\nhttp-socket = :80\nhttp-socket = :81\n":  "psgi=a.pl http-socket=fd://0 http-socket=:81",
		"psgi = a.pl\nstats = /run/x\nhttp = :80\n":            "psgi=a.pl stats=/run/x http=:80",
		"psgi = a.pl\nchown-socket = root\nchmod-socket = 1\n": "psgi=a.pl chmod-socket=1",
	} {
		c := good(t, ini)
		got := slices.DeleteFunc(c.Behind(own).Args(), func(a string) bool { return a == "--set" })
		if strings.Join(got, " ") != "uwsgi master=true "+want {
			t.Errorf("%q: %q", ini, got)
		}
		if slices.Contains(c.Args(), "fd://0") {
			t.Errorf("%q: the ini has changed", ini)
		}
	}
	c := good(t, "command = serve /run/x\nsocket = /run/x\n")
	if got := c.Behind(own).Args(); strings.Join(got, " ") != "serve /run/x" {
		t.Errorf("a command: %q", got)
	}
	// Without such a socket its own options stay as they are.
	if got := good(t, "psgi = a.pl\nsocket = /run/x\nchown-socket = root\n").Args(); !slices.Contains(got, "chown-socket=root") {
		t.Errorf("%q", got)
	}
}
