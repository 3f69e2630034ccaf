package emperor

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Check reads the vassals of an emperor as it would at its start, with the
// rights of each file's owner or, who is not root, of the caller, and says
// what is wrong with them, also with one another. It changes nothing.
func Check(c *Config, networks []Network) (ini.Errors, error) {
	leases, err := LoadLeases(filepath.Join(c.State, leasesFile))
	if err != nil {
		return nil, err
	}
	e := &Emperor{Config: c, Networks: networks, Leases: leases, vassals: map[string]*member{}}
	if e.Controllers, err = vassal.MachineControllers(); err != nil {
		return nil, err
	}
	seen := c.scan()
	var errs ini.Errors
	for _, p := range seen.errs {
		errs = append(errs, ini.Error{Message: p.Error(), Warning: errors.Is(p, errDangling)})
	}
	for _, f := range seen.found {
		e.newMember(f)
	}
	var all []*expansion
	for _, name := range seen.order {
		x := c.checkFile(seen.found[name])
		c.OnDemand.find(x)
		x.Errors = append(x.Errors, e.claim(e.vassals[name], x)...)
		all = append(all, x)
	}
	for _, x := range all {
		if !x.Errors.Failed() {
			if r, err := e.resolve(x.Config); err != nil {
				x.Errors = append(x.Errors, *err)
			} else {
				x.Errors = append(x.Errors, e.unserved(x.Config, r)...)
				e.vassals[x.Name].config = x.Config
				x.Errors = append(x.Errors, stillRoot(x.Config, r)...)
			}
		}
		errs = append(errs, x.Errors...)
	}
	return errs, nil
}

// CheckVassal reads one vassal's ini as Check does.
func CheckVassal(path string) ini.Errors {
	var c Config
	f, err := c.look(path, "")
	if err != nil {
		return ini.Errors{{Message: err.Error()}} // which names the file
	}
	return c.checkFile(f).Errors
}

// checkFile reads a file as its owner, when the caller can: an owner's ini
// may run commands, and root must not run them.
func (c *Config) checkFile(f iniFile) *expansion {
	common := c.Common
	common.Environ = vassalEnviron(os.Environ())
	if os.Geteuid() == 0 && f.owner.uid != 0 || f.refused != "" {
		x := expanders{common: common}
		return &x.expandAll(context.Background(), f.owner, []iniFile{f})[0]
	}
	x := common.read(f.request(), nil)
	x.file = f
	return &x
}

// leasesFile is in the state directory.
const leasesFile = "leases.json"

// OpenLeases reads the instance's leases.
func (i *Instance) OpenLeases() (*Leases, error) {
	return LoadLeases(filepath.Join(i.State, leasesFile))
}
