package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// closeTop closes what lies at the top of the host's tree, but for the system's trees:
// /srv, /home, /var, an admin's own. Landlock keeps files there from being read, and
// has no word in connecting to a socket by its path, nor in looking at names.
func (c *cage) closeTop() error {
	if c.plan.ownRoot() {
		return nil // whose root it is knows what is in it
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path := "/" + e.Name(); e.Type()&fs.ModeSymlink == 0 && path != "/proc" && !slices.Contains(systemTrees, path) {
			c.add(&item{path: path, kind: shut, name: fmt.Sprint("closed", len(c.items))})
		}
	}
	for _, path := range oldNames {
		c.way(path)
	}
	for _, p := range privatePlaces {
		c.way(p.path)
	}
	return nil
}

// oldNames are links to /run by which programs still know it.
var oldNames = []string{"/var/run", "/var/lock"}

// way adds the links that a path leads over: where the folders are the cage's they
// have to be made.
func (c *cage) way(path string) {
	const most = 40 // as the kernel (path_resolution(7))
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0 && links < most; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(next)
		if err != nil { // a folder, or nothing
			at = next
			continue
		}
		links++
		c.add(&item{path: next, kind: symlink, target: target})
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = slices.Concat(strings.Split(target, "/"), rest)
	}
}

// makeLink makes a link in a folder of ours.
func (c *cage) makeLink(above, it *item) error {
	if err := c.skeleton(above, &item{path: filepath.Dir(it.path)}); err != nil {
		return err
	}
	rel, err := filepath.Rel(above.path, it.path)
	if err != nil {
		return err
	}
	err = unix.Symlinkat(it.target, int(c.scratch.Fd()), filepath.Join(above.name, rel))
	if errors.Is(err, unix.EEXIST) {
		return nil // as those in /dev
	}
	return err
}
