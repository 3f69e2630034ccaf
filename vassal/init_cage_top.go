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
			c.add(&item{path: path, kind: shut, file: !e.IsDir(), name: fmt.Sprint("shut", len(c.items))})
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

// venvOf is the virtual environment that a program is the Python of (PEP 405), which
// takes another's modules where it does not find its own; empty: none.
func venvOf(program string) string {
	if bin := filepath.Dir(program); filepath.Base(bin) == "bin" {
		venv := filepath.Dir(bin)
		if _, err := os.Stat(venv + "/pyvenv.cfg"); err == nil && !shared(venv) {
			return venv
		}
	}
	return ""
}

// turnFolders are the folders in which the links lie that a path leads over: what an app
// begins with is often turned to another version by one, which is then found, too.
// Somebody's whole home is not meant by it.
func turnFolders(path string) (all []string) {
	eachLink(path, func(at, target string) bool {
		if folder := filepath.Dir(at); !detour(target) && !shared(folder) && filepath.Dir(folder) != "/home" {
			all = append(all, folder)
		}
		return true
	})
	return all
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

// detour says whether a link leads by way of a folder that nobody needs, and back by "..".
func detour(target string) bool { return filepath.Clean(target) != strings.TrimRight(target, "/") }

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
		if detour(target) {
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
	if c.plan.ownRoot() {
		return false
	}
	eachLink(path, func(at, _ string) bool {
		over := c.over(at)
		led = c.mayTurn(at) || !needed && over != nil && over.kind == private
		return !led
	})
	return led
}

// mayTurn says whether the app may change a link.
func (k *Confined) mayTurn(link string) bool {
	below := func(folder string) bool { return link != folder && Under(link, folder) }
	return slices.ContainsFunc(k.Writable, below) ||
		slices.ContainsFunc(k.Binds, func(b Bind) bool { return !b.ReadOnly && (below(b.Source) || below(b.Target)) })
}

// turns says whether the app may change a link that a path leads over.
func (k *Confined) turns(path string) (may bool) {
	eachLink(path, func(at, _ string) bool {
		may = k.mayTurn(at)
		return !may
	})
	return may
}

// makeLink makes a link in a folder of ours.
func (c *cage) makeLink(it *item) error {
	if err := c.skeleton(it.above, &item{path: filepath.Dir(it.path)}); err != nil {
		return err
	}
	rel, err := filepath.Rel(it.above.path, it.path)
	if err != nil {
		return err
	}
	err = unix.Symlinkat(it.target, int(c.scratch.Fd()), filepath.Join(it.above.name, rel))
	if errors.Is(err, unix.EEXIST) {
		return nil // as those in /dev
	}
	return err
}
