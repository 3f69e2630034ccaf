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

// maxLeases bounds what is read of another emperor's leases.
const maxLeases = 64 << 20

// rangesBeside are the first ids of the ranges that emperors beside this one have
// leased. What is nobody's lease, for others may write it, does not count.
func (l *Leases) rangesBeside() (firsts []int, err error) {
	own, _ := os.Stat(filepath.Dir(l.path)) // who only checks may have none
	all, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(l.path)), "*", leasesFile))
	if err != nil {
		return nil, err
	}
	for _, path := range all {
		if dir, err := os.Stat(filepath.Dir(path)); err != nil || os.SameFile(dir, own) || !ownedBySelf(dir) {
			continue
		}
		theirs, err := readBeside(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("leases of another emperor, %s: %w; repair the file, or remove it if that emperor is gone", path, err)
		}
		firsts = slices.AppendSeq(firsts, maps.Values(theirs))
	}
	return firsts, nil
}

func ownedBySelf(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func readBeside(path string) (map[string]int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || !ownedBySelf(info) {
		return nil, err
	}
	var file leaseFile
	if err := json.NewDecoder(io.LimitReader(f, maxLeases)).Decode(&file); err != nil {
		return nil, err
	}
	return file.Ranges, nil
}
