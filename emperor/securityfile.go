package emperor

import (
	"errors"

	"fiefdom/internal/exposure"
	"fiefdom/internal/ini"
)

// SecurityAmong is what is to be judged of a vassal of this emperor as its ini asks
// for it, also of one that the emperor does not see yet. It changes nothing.
func SecurityAmong(c *Config, networks []Network, path string) (exposure.Facts, ini.Errors, error) {
	seen := c.scan(nil)
	name, err := seen.join(c, path)
	if err != nil {
		return exposure.Facts{}, ini.Errors{{Message: err.Error()}}, nil // which names the file
	}
	e, err := c.checker(networks)
	if err != nil {
		return exposure.Facts{}, nil, err
	}
	f := seen.found[name]
	e.newMember(f)
	x := c.checkFile(f)
	c.OnDemand.find(x)
	if x.Errors.Failed() {
		return exposure.Facts{}, x.Errors, nil
	}
	v := e.vassals[name]
	v.config = x.Config
	a := e.appraiseOne(v, &Status{}, nil)
	if a.look(); a.why != "" {
		return a.facts, nil, errors.New(a.why)
	}
	return a.facts, nil, nil
}
