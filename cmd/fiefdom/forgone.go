package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"fiefdom/emperor"
)

// Files that the emperor makes where his own ini says so. The next emperor's
// ini may say otherwise, and he does not know of what this one's said.

// remove removes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sockets are the paths where an emperor of a config listens by what it says.
func sockets(c *emperor.Config) (paths []string) {
	for _, address := range []string{c.Stats, c.Metrics, c.Web.Address} {
		if address != "" && statsNetwork(address) == "unix" {
			paths = append(paths, address)
		}
	}
	return paths
}

// removeForgone removes what this emperor has made and one of another config will
// not make again, and says what that was.
func (r *runner) removeForgone(next *emperor.Config) (gone string) {
	var forgone []string
	r.sockets = slices.DeleteFunc(r.sockets, func(path string) bool {
		if slices.Contains(sockets(next), path) {
			return false
		}
		forgone = append(forgone, path)
		return true
	})
	if path := r.config.PIDFile; path != "" && path != next.PIDFile {
		forgone = append(forgone, path)
	}
	for _, path := range forgone {
		if err := remove(path); err != nil {
			r.log.Warn("a file of the former ini stays", "err", err)
		}
	}
	return strings.Join(forgone, " ")
}

// without says what an emperor lacks who was to be another one and goes on.
func without(gone string, err error) error {
	if err == nil || gone == "" {
		return err
	}
	return fmt.Errorf("%w; it goes on without %s, which its ini does not name any more", err, gone)
}
