package emperor

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"fiefdom/internal/ini"
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
