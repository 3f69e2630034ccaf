package emperor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// foreign resolves a device whose socket is no network's of this emperor: a
// foreign router listens there, a real uWSGI's for one. What the network is
// like only the ini knows.
func (e *Emperor) foreign(l *vassal.Link, c *vassal.Config, d vassal.DeviceSpec) error {
	switch {
	case e.Config.Tyrant:
		// The emperor would connect with root's rights, to any socket of the machine.
		return fmt.Errorf("socket %s belongs to no tuntap-router of this emperor, and in tyrant mode a device joins no other; its sockets are: %s", d.Socket, e.sockets())
	case d.Auto:
		return fmt.Errorf("device %s: socket %s belongs to no tuntap-router of this emperor (%s), so there is no pool to lease an address from; write the address", d.Name, d.Socket, e.sockets())
	}
	l.Foreign, l.Socket = true, d.Socket
	if !filepath.IsAbs(d.Socket) && !strings.HasPrefix(d.Socket, "@") {
		l.Socket = filepath.Join(filepath.Dir(c.File), d.Socket)
	}
	for _, a := range d.Addresses {
		l.Addresses = append(l.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	l.Gateways = append(l.Gateways, d.Gateways...)
	return l.CheckForeign()
}

// introduce completes the links with what the plan says, and names the jail.
func (r *resolved) introduce(c *vassal.Config) {
	for i := range r.links {
		if l := &r.links[i]; l.Foreign && c.Credentials {
			l.Greeting = vassal.Greeting{Credentials: true, UID: max(r.plan.UID, 0), GID: max(r.plan.GID, 0)}
		}
	}
	r.key = jailID(r.net, r.lone, r.links)
}

// unserved warns of foreign routers that are not there: it may be a typing
// error, and may be a router that comes later.
func (e *Emperor) unserved(c *vassal.Config, r *resolved) ini.Errors {
	var errs ini.Errors
	for i, d := range e.devices(c) {
		l := r.links[i]
		if !l.Foreign || strings.HasPrefix(l.Socket, "@") {
			continue
		}
		if _, err := os.Stat(l.Socket); err != nil {
			errs = append(errs, ini.Error{Pos: d.Pos, Warning: true, Message: fmt.Sprintf(
				"socket %s belongs to no tuntap-router of this emperor (%s), and no other router is there now", l.Socket, e.sockets())})
		}
	}
	return errs
}

// addBridged adds what the devices of foreign routers counted.
func (e *Emperor) addBridged(all []Status) {
	byName := map[string]*Status{}
	for i := range all {
		byName[all[i].Name] = &all[i]
	}
	e.jails.Range(func(_, j any) bool {
		jail := j.(*vassal.Jail)
		s := byName[jail.Name]
		if s == nil {
			return true
		}
		rx, tx, full, err := jail.Traffic()
		if err != nil {
			e.Log.Debug("traffic", "vassal", jail.Name, "err", err)
		}
		s.RxBytes += rx
		s.TxBytes += tx
		if full > 0 {
			s.Drops["full"] += full
		}
		return true
	})
}
