package vassal

import (
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/tuntap"
)

// Shadowed warns of rules of a device that no network of ours has, and that
// never decide.
func (d *DeviceSpec) Shadowed() ini.Errors {
	var none *tuntap.NetworkOptions
	return none.ShadowedRules(d.Rules)
}

// Sockets are the options by which the app makes sockets.
func (c *Config) Sockets() (all []ini.Pair) {
	for _, p := range c.App {
		if slices.Contains(listeners, p.Key) {
			all = append(all, p)
		}
	}
	return all
}
