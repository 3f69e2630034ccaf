package emperor

import (
	"path/filepath"
	"strings"

	"fiefdom/internal/ini"
)

// NameOf is the vassal's name that a file gives.
func NameOf(path string) string { return strings.TrimSuffix(filepath.Base(path), iniSuffix) }

// Check reads the vassals of an emperor as it would at its start, with the
// rights of the caller, and says what is wrong with them, also with one
// another. It changes nothing.
func Check(c *Config, networks []Network) (ini.Errors, error) {
	leases, err := LoadLeases(filepath.Join(c.State, leasesFile))
	if err != nil {
		return nil, err
	}
	e := &Emperor{Config: c, Networks: networks, Leases: leases}
	found, order, problems := scan(c.Monitors)
	var errs ini.Errors
	for _, p := range problems {
		errs = append(errs, ini.Error{Message: p.Error()})
	}
	for _, name := range order {
		f := found[name]
		config, wrong := ReadVassal(name, f.path, nil)
		if !wrong.Failed() {
			wrong = append(wrong, e.admit(&member{name: name, file: f}, config)...)
		}
		errs = append(errs, wrong...)
	}
	return errs, nil
}

// leasesFile is in the state directory.
const leasesFile = "leases.json"

// OpenLeases reads the instance's leases.
func (i *Instance) OpenLeases() (*Leases, error) {
	return LoadLeases(filepath.Join(i.State, leasesFile))
}
