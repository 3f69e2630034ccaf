package vassal

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
)

// SocketRights say who may connect to a socket that the emperor makes. What is
// nil was not said.
type SocketRights struct {
	Mode *uint32 `json:"mode,omitempty"`
	UID  *int    `json:"uid,omitempty"`
	GID  *int    `json:"gid,omitempty"`
}

// SetMode takes uWSGI's chmod-socket: octal digits, or 666 without a value.
func (r *SocketRights) SetMode(text string) error {
	mode := uint64(0o666)
	if text != "" && text != "true" {
		var err error
		if mode, err = strconv.ParseUint(text, 8, 9); err != nil {
			return fmt.Errorf("%q is no mode: want octal digits such as 660", text)
		}
	}
	m := uint32(mode)
	r.Mode = &m
	return nil
}

// SetOwner takes uWSGI's chown-socket: USER, USER:GROUP or :GROUP, by name or
// number.
func (r *SocketRights) SetOwner(text string) error {
	name, group, _ := strings.Cut(text, ":")
	if name == "" && group == "" {
		return errors.New("want USER, USER:GROUP or :GROUP")
	}
	if name != "" {
		uid, err := idOf(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", fmt.Errorf("no user %q on this machine", name)
			}
			return u.Uid, nil
		})
		if err != nil {
			return err
		}
		r.UID = &uid
	}
	if group != "" {
		gid, err := idOf(group, func() (string, error) {
			g, err := user.LookupGroup(group)
			if err != nil {
				return "", fmt.Errorf("no group %q on this machine", group)
			}
			return g.Gid, nil
		})
		if err != nil {
			return err
		}
		r.GID = &gid
	}
	return nil
}

func idOf(name string, lookup func() (string, error)) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, Identity{Name: name, ID: n}.check()
	}
	text, err := lookup()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// check says what SetMode and SetOwner would have said.
func (r SocketRights) check() error {
	if r.Mode != nil && *r.Mode > maxMask {
		return fmt.Errorf("chmod-socket %o: want 0 to %o", *r.Mode, maxMask)
	}
	for _, id := range []*int{r.UID, r.GID} {
		if id == nil {
			continue
		}
		if err := (Identity{Name: "chown-socket", ID: *id}).check(); err != nil {
			return err
		}
	}
	return nil
}

// socketOptions are about the sockets of a uwsgi too, whoever binds them.
var socketOptions = []string{"chmod-socket", "chown-socket"}

// listeners are the options by which a uwsgi listens itself.
var listeners = []string{
	"socket", "uwsgi-socket", "http-socket", "http11-socket", "fastcgi-socket", "fastcgi-nph-socket",
	"scgi-socket", "scgi-nph-socket", "raw-socket", "puwsgi-socket",
}

// Behind is c for an app that has its listening socket as its stdin. A uwsgi
// finds it there, and takes it for one of its default protocol. Where its ini
// says that it listens at that very address (own), it would bind the address
// away from the emperor: it is told to take descriptor 0, by that option's
// protocol. The owner of the socket is the emperor's to set.
func (c *Config) Behind(own func(address string) bool) *Config {
	behind := *c
	behind.App = nil
	for _, p := range c.App {
		switch {
		case p.Key == "chown-socket":
			continue
		case slices.Contains(listeners, p.Key) && own(p.Value):
			p.Value = "fd://0"
		}
		behind.App = append(behind.App, p)
	}
	return &behind
}

// setSocketMode and setSocketOwner are the options of a vassal's ini.
func setSocketMode(c *Config, p ini.Pair) error { return c.Socket.SetMode(p.Value) }

func setSocketOwner(c *Config, p ini.Pair) error { return c.Socket.SetOwner(p.Value) }
