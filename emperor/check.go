package emperor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Check reads the vassals of an emperor as it would at its start, with the
// rights of each file's owner or, who is not root, of the caller, and says
// what is wrong with them, also with one another. It changes nothing.
func Check(c *Config, networks []Network) (ini.Errors, error) {
	seen := c.scan()
	var errs ini.Errors
	for _, p := range seen.errs {
		errs = append(errs, ini.Error{Message: p.Error(), Warning: errors.Is(p, errDangling)})
	}
	all, err := c.checkAll(seen, networks)
	for _, x := range all {
		errs = append(errs, x.Errors...)
	}
	return errs, err
}

// CheckAmong is Check of one vassal among the others of its emperor, also of
// one that the emperor does not see yet.
func CheckAmong(c *Config, networks []Network, path string) (ini.Errors, error) {
	seen := c.scan()
	name, err := seen.join(c, path)
	if err != nil {
		return ini.Errors{{Message: err.Error()}}, nil // which names the file
	}
	all, err := c.checkAll(seen, networks)
	for _, x := range all {
		if x.Name == name {
			return x.Errors, nil
		}
	}
	return nil, err
}

// checkAll judges what was seen, in its order.
func (c *Config) checkAll(seen *inis, networks []Network) ([]*expansion, error) {
	leases, err := LoadLeases(filepath.Join(c.State, leasesFile))
	if err != nil {
		return nil, err
	}
	e := &Emperor{Config: c, Networks: networks, Leases: leases, vassals: map[string]*member{}}
	if e.Controllers, err = vassal.MachineControllers(); err != nil {
		return nil, err
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
	sockets := e.ownSockets()
	for _, x := range all {
		if x.Errors.Failed() {
			continue
		}
		if r, err := e.resolve(x.Config); err != nil {
			x.Errors = append(x.Errors, *err)
		} else {
			x.Errors = append(x.Errors, e.unserved(x.Config, r)...)
			e.vassals[x.Name].config = x.Config
			x.Errors = append(x.Errors, stillRoot(x.Config, r)...)
			x.Errors = append(x.Errors, e.shadowed(x.Config)...)
			x.Errors = append(x.Errors, sockets.add(x.Config)...)
		}
	}
	return all, nil
}

// join finds the file among those that were seen, or adds it as the last one.
// It returns the vassal's name.
func (s *inis) join(c *Config, path string) (name string, err error) {
	f, err := c.look(path, "")
	if err != nil {
		return "", err
	}
	for name, other := range s.found {
		if other.section == "" && samePath(other.path, path) {
			return name, nil
		}
	}
	if f, err = c.withDoor(f); err != nil {
		return "", err
	}
	if other, taken := s.found[f.name]; taken {
		return "", fmt.Errorf("%s: the name %q is taken by %s; rename one of them", path, f.name, other.path)
	}
	s.found[f.name] = f
	s.order = append(s.order, f.name)
	return f.name, nil
}

// samePath says whether two paths are one name in one folder.
func samePath(a, b string) bool {
	if filepath.Base(a) != filepath.Base(b) {
		return false
	}
	x, err := os.Stat(filepath.Dir(a))
	if err != nil {
		return false
	}
	y, err := os.Stat(filepath.Dir(b))
	return err == nil && os.SameFile(x, y)
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

// ShowVassal is the options of one vassal, with those that the emperor puts
// around it, and what is wrong with them as a text. What they mean is not judged.
func ShowVassal(c *Config, path, section string) ([]ini.Pair, ini.Errors) {
	f, err := c.look(path, section)
	if err != nil {
		return nil, ini.Errors{{Message: err.Error()}}
	}
	f.show = true
	x := c.checkFile(f)
	return x.Pairs, x.Errors
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
