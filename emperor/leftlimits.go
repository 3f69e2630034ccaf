package emperor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// limitRecord has the folders of the instance in v1 cgroup trees, one a line.
const limitRecord = "limits"

// MakeControllers finds by what the instance's vassals are limited. Its cgroup is
// empty without a v2 tree.
func (i *Instance) MakeControllers(cgroup vassal.Cgroup) (*vassal.Controllers, error) {
	var above vassal.Cgroup
	if cgroup != "" {
		above = vassal.Cgroup(filepath.Dir(string(cgroup)))
	}
	c, err := vassal.FindControllers(above, i.cgroupName(), i.recordLimits)
	if err == nil {
		c.Below(cgroup)
	}
	return c, err
}

// recordLimits notes a folder before it is made.
func (i *Instance) recordLimits(dir string) error {
	known, err := i.limitFolders()
	if err != nil || slices.Contains(known, dir) {
		return err
	}
	f, err := os.OpenFile(i.Path(limitRecord), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(dir + "\n")
	return errors.Join(err, f.Close())
}

func (i *Instance) limitFolders() ([]string, error) {
	b, err := os.ReadFile(i.Path(limitRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}

// endLimits ends who is left in the recorded folders of v1 trees, but for the
// generations that keep names, and removes them. A line that was cut short is
// of a folder that was not made yet.
func (i *Instance) endLimits(ctx context.Context, keep func(generation string) bool) error {
	folders, err := i.limitFolders()
	errs := []error{err}
	for _, dir := range folders {
		if !filepath.IsAbs(dir) || filepath.Base(dir) != i.cgroupName() {
			continue
		}
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		kept := false
		for _, e := range entries {
			switch {
			case !e.IsDir():
			case keep(e.Name()):
				kept = true
			default:
				errs = append(errs, vassal.RemoveLegacy(ctx, filepath.Join(dir, e.Name())))
			}
		}
		if !kept {
			if err := unix.Rmdir(dir); err != nil {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
