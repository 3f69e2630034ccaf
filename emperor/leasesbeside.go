package emperor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Emperors whose state directories lie beside each other, as they do unless their
// inis say otherwise, never have a range of ids in common. There is no lock that a
// stranger could hold: each first saves what it has leased, and then looks whether
// another has saved the same. Of two, at least the second sees it, and leases anew.
// Single uids are not worth as many writes: of those an emperor leases none that
// another has saved.

// maxLeases bounds what is read of another emperor's leases.
const maxLeases = 64 << 20

// rangesBeside are the first ids of the ranges that emperors beside this one have
// leased.
func (l *Leases) rangesBeside() (firsts []int, err error) {
	err = l.beside(func(path string, theirs leaseFile, err error) error {
		if err != nil {
			return fmt.Errorf("leases of another emperor, %s: %w; repair the file, or remove it if that emperor is gone", path, err)
		}
		firsts = slices.AppendSeq(firsts, maps.Values(theirs.Ranges))
		return nil
	})
	return firsts, err
}

// uidsBeside are the uids that emperors beside this one have leased, as far as that is
// saved and can be read: two vassals of one uid are still in jails of their own.
func (l *Leases) uidsBeside() map[int]bool {
	uids := map[int]bool{}
	_ = l.beside(func(_ string, theirs leaseFile, _ error) error {
		for _, uid := range theirs.UIDs {
			uids[uid] = true
		}
		return nil
	})
	return uids
}

// beside calls fn with the leases of each emperor beside this one, or why they cannot
// be read. What is nobody's lease, for others may write it, is left out.
func (l *Leases) beside(fn func(path string, theirs leaseFile, err error) error) error {
	own, _ := os.Stat(filepath.Dir(l.path)) // who only checks may have none
	all, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(l.path)), "*", leasesFile))
	if err != nil {
		return err
	}
	for _, path := range all {
		if dir, err := os.Stat(filepath.Dir(path)); err != nil || os.SameFile(dir, own) || !ownedBySelf(dir) {
			continue
		}
		theirs, err := readBeside(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := fn(path, theirs, err); err != nil {
			return err
		}
	}
	return nil
}

func ownedBySelf(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func readBeside(path string) (theirs leaseFile, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return theirs, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || !ownedBySelf(info) {
		return theirs, err
	}
	err = json.NewDecoder(io.LimitReader(f, maxLeases)).Decode(&theirs)
	return theirs, err
}
