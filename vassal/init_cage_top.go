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

// shutTop shuts what lies at the top of the host's tree, but for the system's trees:
// /srv, /home, /var, an admin's own. Landlock keeps files there from being read, and
// has no word in connecting to a socket by its path, nor in looking at names.
func (c *cage) shutTop() error {
	if c.plan.ownRoot() {
		return nil // whose root it is knows what is in it
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path := "/" + e.Name(); e.Type()&fs.ModeSymlink == 0 && path != "/proc" && !slices.Contains(systemTrees, path) {
			c.add(&item{path: path, kind: shut, name: fmt.Sprint("shut", len(c.items))})
		}
	}
	for _, path := range oldNames {
		c.addLinks(path)
	}
	for _, p := range privatePlaces {
		c.addLinks(p.path)
	}
	return nil
}

// oldNames are links to /run by which programs still know it.
var oldNames = []string{"/var/run", "/var/lock"}

// sharedFolders hold what is of many programs: who names a file there means that file.
var sharedFolders = []string{"/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/opt", "/var/local"}

// shared says whether a folder is too much to stand for one thing in it.
func shared(folder string) bool {
	return filepath.Dir(folder) == "/" || slices.Contains(sharedFolders, folder)
}

// eachLink tells of the links that a path leads over, where they lie and where they
// lead, until fn says that it is enough.
func eachLink(path string, fn func(at, target string) bool) {
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
		if !fn(next, target) {
			return
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = slices.Concat(strings.Split(target, "/"), rest)
	}
}

// linksAtMost bounds the links that are made for one app.
const linksAtMost = 200

// addLinks adds the links that a path leads over: where the folders are the cage's
// they have to be made.
func (c *cage) addLinks(path string) {
	eachLink(path, func(at, target string) bool {
		if c.links == linksAtMost {
			return false
		}
		c.links++
		if strings.Contains(target, "..") { // perhaps by way of a folder that nobody needs
			if real, err := filepath.EvalSymlinks(at); err == nil {
				target = real
			}
		}
		c.add(&item{path: at, kind: symlink, target: target})
		return true
	})
}

// led says whether a path leads over a link of somebody's who has no say in what the
// app is shown: of the app's own, which has made it in a place that it writes, or,
// where the app does not begin, of anybody's in a folder such as /tmp.
func (c *cage) led(path string, needed bool) (led bool) {
	written := func(at string) bool {
		below := func(folder string) bool { return at != folder && Under(at, folder) }
		return slices.ContainsFunc(c.Writable, below) || slices.ContainsFunc(c.Binds, func(b Bind) bool { return !b.ReadOnly && below(b.Source) })
	}
	eachLink(path, func(at, _ string) bool {
		over := c.over(at)
		led = led || written(at) || !needed && over != nil && over.kind == private
		return !led
	})
	return led && !c.plan.ownRoot()
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
