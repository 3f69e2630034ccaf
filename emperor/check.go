package emperor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Check reads the vassals of an emperor as it would at its start, with the
// rights of each file's owner or, who is not root, of the caller, and says
// what is wrong with them, also with one another. It changes nothing.
func Check(c *Config, networks []Network) (ini.Errors, error) {
	seen := c.scan(nil)
	var errs ini.Errors
	for _, p := range seen.errs {
		errs = append(errs, ini.Error{Message: p.Error(), Warning: errors.Is(p, errDangling)})
	}
	errs = append(errs, c.passedOver()...)
	all, err := c.checkAll(seen, networks)
	for _, x := range all {
		errs = append(errs, x.Errors...)
	}
	return errs, err
}

// forms are endings of files that somebody may take for inis of vassals.
var forms = []string{iniSuffix, ".conf", ".cfg", ".config", ".xml", ".yaml", ".yml", ".json"}

// passedOver warns of files beside inis that look like some, and are nobody's.
func (c *Config) passedOver() (errs ini.Errors) {
	for _, m := range c.Monitors {
		entries, err := os.ReadDir(m.Dir)
		if m.Dir == "" || err != nil {
			continue // the scan has said so
		}
		for _, e := range entries {
			name := e.Name()
			if name[0] != '.' && !c.isIni(name) && !e.IsDir() && slices.Contains(forms, strings.ToLower(filepath.Ext(name))) {
				errs = append(errs, ini.Error{
					Pos: ini.Pos{File: filepath.Join(m.Dir, name)}, Warning: true,
					Message: "no vassal: the names of inis end in " + iniSuffix,
				})
			}
		}
	}
	return errs
}

// Owner is a user, with the group that his inis belong to.
type Owner struct{ UID, GID uint32 }

// CheckAmong is Check of one vassal among the others of its emperor, also of
// one that the emperor does not see yet. With as, its ini is taken for one of
// that owner's.
func CheckAmong(c *Config, networks []Network, path string, as *Owner) (ini.Errors, error) {
	seen := c.scan(nil)
	name, err := seen.join(c, path)
	if err != nil {
		return ini.Errors{{Message: err.Error()}}, nil // which names the file
	}
	if as != nil {
		f := seen.found[name]
		f.owner, f.skeleton, f.refused = owner{as.UID, as.GID}, true, "" // root's word for it, as a link to it would be
		seen.found[name] = f
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
	e, err := c.checker(networks)
	if err != nil {
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
	var hosts hostListeners
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
			x.Errors = append(x.Errors, unheeded(x.Config, r.level)...)
			x.Errors = append(x.Errors, unlistened(x.Config, r)...)
			x.Errors = append(x.Errors, e.shadowed(x.Config)...)
			x.Errors = append(x.Errors, sockets.add(x.Config)...)
			x.Errors = append(x.Errors, hosts.taken(x.Config, r)...)
			x.Errors = append(x.Errors, e.lacking(x.Config)...)
		}
	}
	return all, nil
}

// checker is an emperor who judges inis and starts nothing.
func (c *Config) checker(networks []Network) (*Emperor, error) {
	leases, err := LoadLeases(filepath.Join(c.State, leasesFile))
	if err != nil {
		return nil, err
	}
	e := &Emperor{Config: c, Networks: networks, Leases: leases, vassals: map[string]*member{}}
	e.Controllers, err = vassal.MachineControllers()
	return e, err
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
