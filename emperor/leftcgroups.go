package emperor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"fiefdom/vassal"
)

// cgroupRecords is the folder of records of generations whose cgroup is below
// one that their ini names, not below the instance's: the path of each.
const cgroupRecords = "cgroups"

// recordCgroup notes the cgroup of a vassal's generation before it is made.
func (i *Instance) recordCgroup(name string, c vassal.Cgroup) error {
	if err := os.MkdirAll(i.Path(cgroupRecords), 0o700); err != nil {
		return err
	}
	return os.WriteFile(i.Path(cgroupRecords, safeName(name)), []byte(c), 0o600)
}

// forgetCgroup takes that back.
func (i *Instance) forgetCgroup(name string) error {
	err := os.Remove(i.Path(cgroupRecords, safeName(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// endCgroups ends what is left in the recorded cgroups. A record that was cut
// short is of a cgroup that was not made yet.
func (i *Instance) endCgroups(ctx context.Context, orphans *Orphans) error {
	entries, err := os.ReadDir(i.Path(cgroupRecords))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path, err := os.ReadFile(i.Path(cgroupRecords, e.Name()))
		c := vassal.Cgroup(path)
		if err == nil && filepath.IsAbs(string(c)) && strings.HasPrefix(filepath.Base(string(c)), e.Name()+".") {
			if orphans.spares(c) {
				err = orphans.endOthers(ctx, c)
			} else {
				err = c.Remove(ctx)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// endOthers ends what is in a cgroup and is no orphan's.
func (o *Orphans) endOthers(ctx context.Context, c vassal.Cgroup) error {
	if o == nil {
		return c.Remove(ctx)
	}
	children, err := os.ReadDir(string(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, d := range children {
		child := vassal.Cgroup(filepath.Join(string(c), d.Name()))
		switch {
		case !d.IsDir(), d.Name() == VaultGroup, !o.Empty() && d.Name() == ResponderGroup, o.Router && d.Name() == RouterGroup:
		case o.spares(child):
			errs = append(errs, o.endOthers(ctx, child))
		default:
			errs = append(errs, child.Remove(ctx))
		}
	}
	return errors.Join(errs...)
}
