package emperor

import (
	"fmt"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// hostListeners are the sockets of this host that have ports, asked for once
// and only when something is published.
type hostListeners struct {
	of map[uint8][]portSocket // by protocol
}

// taken warns of ports that a program of this host has now: it may be another
// host that the file is for. What an emperor of ours holds is no such program.
func (l *hostListeners) taken(c *vassal.Config, r *resolved) (errs ini.Errors) {
	if l.of == nil {
		l.of = map[uint8][]portSocket{}
	}
	for _, p := range c.Publish {
		sockets, asked := l.of[p.Proto]
		if !asked {
			sockets, _ = portSockets(p.Proto) // a warning less, where nobody may ask
			l.of[p.Proto] = sockets
		}
		four, six := false, false
		for _, one := range r.published {
			four, six = four || one.To.Addr().Is4(), six || one.To.Addr().Is6()
		}
		if text := whoIsThere(sockets, p, four, six); text != "" {
			errs = append(errs, ini.Error{Pos: p.Pos, Warning: true, Message: fmt.Sprintf("port %s is taken on this host now by %s", p.HostPorts(), text)})
		}
	}
	return errs
}

func whoIsThere(sockets []portSocket, p vassal.Publish, four, six bool) string {
	for _, h := range portsOf(p, four, six) {
		for _, s := range sockets {
			if !s.listens || !s.inWayOf(h) {
				continue
			}
			switch pid := pidOf(s.inode); {
			case pid != 0 && programOf(pid) == "fiefdom":
			case pid != 0:
				return fmt.Sprintf("%s (pid %d, %s)", programOf(pid), pid, s.text())
			case p.Proto == unix.IPPROTO_TCP: // a listener, which no emperor's is
				return "a program that " + s.text()
			}
		}
	}
	return ""
}
