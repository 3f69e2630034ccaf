package emperor

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// setMetrics takes where metrics are served. A port alone is refused: it would
// be open to everybody by accident.
func setMetrics(c *Config, p ini.Pair) error {
	address, err := netip.ParseAddrPort(p.Value)
	if !filepath.IsAbs(p.Value) && (err != nil || address.Port() == 0) {
		return fmt.Errorf("%s = %s: want an absolute path such as /run/metrics.sock, or ADDRESS:PORT such as 127.0.0.1:9200", p.Key, p.Value)
	}
	c.Metrics = p.Value
	return nil
}

// Web is where the web page is served, and to whom.
type Web struct {
	Address string              // an absolute path, or a loopback ADDRESS:PORT; empty: nowhere
	Rights  vassal.SocketRights // of a path
}

// setWeb takes where the web page is served. It shows what vassals write, and
// nothing on the way is encrypted: it leaves the machine by somebody else's hands.
func setWeb(c *Config, p ini.Pair) error {
	address, err := netip.ParseAddrPort(p.Value)
	switch {
	case filepath.IsAbs(p.Value):
	case err != nil || address.Port() == 0:
		return fmt.Errorf("%s = %s: want an absolute path such as /run/fiefdom-web.sock, or a loopback address with its port such as 127.0.0.1:9280", p.Key, p.Value)
	case !address.Addr().Unmap().IsLoopback():
		return fmt.Errorf("%s = %s: %s is not loopback, and the page is not encrypted; write 127.0.0.1:%d and reach it by ssh -L %[4]d:127.0.0.1:%[4]d THIS-MACHINE, or give a path to a web server that encrypts and asks for a password",
			p.Key, p.Value, address.Addr(), address.Port())
	}
	c.Web.Address = p.Value
	return nil
}

// check finds rights that would do nothing.
func (w *Web) check() error {
	if (w.Rights.Mode != nil || w.Rights.UID != nil || w.Rights.GID != nil) && !filepath.IsAbs(w.Address) {
		return errors.New("emperor-web-chmod-socket and emperor-web-chown-socket are for a socket; write emperor-web = PATH, or leave them out")
	}
	return nil
}
