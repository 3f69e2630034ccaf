package emperor

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// IDPool is the host's uids and gids that ranges for vassals' user namespaces are
// leased from.
type IDPool struct{ First, Last int }

// defaultPool is above what systemd gives to containers, and below its foreign
// images (systemd's UIDS-GIDS.md).
var defaultPool = IDPool{0x70000000, 0x7FFDFFFF}

const maxUID = 1<<31 - 1 // some programs take more for negative

func (p IDPool) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

// count is how many ranges there are.
func (p IDPool) count() int { return (p.Last - p.First + 1) / vassal.RangeSize }

// holds says whether a range begins at first.
func (p IDPool) holds(first int) bool {
	return first >= p.First && first+vassal.RangeSize-1 <= p.Last && (first-p.First)%vassal.RangeSize == 0
}

// poolOption is userns-pool.
var poolOption = ini.Option[Config]{
	Name: "userns-pool", Kind: ini.Text, Since: "0.1", Set: setPool,
	Meaning: "FIRST-LAST: the host's uids and gids that vassals with userns = auto get ranges of 65,536 of (" + defaultPool.String() + "); nobody else has any of them; of other emperors only those whose state-dir lies beside this one's may lease from it, too",
}

func setPool(c *Config, p ini.Pair) error {
	first, last, ok := strings.Cut(p.Value, "-")
	a, err := strconv.Atoi(strings.TrimSpace(first))
	b, berr := strconv.Atoi(strings.TrimSpace(last))
	pool := IDPool{a, b}
	switch {
	case !ok || err != nil || berr != nil:
		return fmt.Errorf("userns-pool = %.100q: want FIRST-LAST, such as %s", p.Value, defaultPool)
	case a < vassal.RangeSize:
		return fmt.Errorf("userns-pool = %s: uids below %d are the host's own; begin there or later", pool, vassal.RangeSize)
	case b > maxUID:
		return fmt.Errorf("userns-pool = %s: want uids up to %d", pool, maxUID)
	case pool.count() < 1:
		return fmt.Errorf("userns-pool = %s has less than the %d uids of one vassal", pool, vassal.RangeSize)
	}
	if err := pool.free(idFiles); err != nil {
		return fmt.Errorf("userns-pool = %s: %w", pool, err)
	}
	c.UsersPool = pool
	return nil
}

// idFiles say who else has ids of the host's: users and groups, and ranges of other
// containers' managers.
var idFiles = []idFile{
	{"/etc/passwd", 2, -1}, {"/etc/group", 2, -1}, {"/etc/subuid", 1, 2}, {"/etc/subgid", 1, 2},
}

// idFile has lines of fields between colons.
type idFile struct {
	path       string
	first, len int // fields; -1: one id
}

// free says who has ids of the pool already.
func (p IDPool) free(files []idFile) error {
	for _, file := range files {
		err := file.each(func(name string, first, size int) error {
			if first > p.Last || first+size-1 < p.First {
				return nil
			}
			return fmt.Errorf("%s gives %s ids from %d to %d; choose others by userns-pool = FIRST-LAST in the emperor's ini", file.path, name, first, first+size-1)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *idFile) each(fn func(name string, first, size int) error) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) <= max(f.first, f.len) {
			continue
		}
		first, err := strconv.Atoi(fields[f.first])
		size := 1
		if err == nil && f.len >= 0 {
			size, err = strconv.Atoi(fields[f.len])
		}
		if err != nil || size < 1 {
			continue
		}
		if err := fn(fields[0], first, size); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Range leases a range of the pool to a vassal, by its first id. Others are the first
// ids of ranges that it must not have anything of.
func (l *Leases) Range(pool IDPool, name string, others []int) (int, error) {
	free := func(first int) bool {
		return !slices.ContainsFunc(others, func(theirs int) bool { return rangesMeet(first, theirs) })
	}
	if first, ok := l.file.Ranges[name]; ok && pool.holds(first) && free(first) {
		return first, nil
	}
	used := map[int]bool{}
	for other, first := range l.file.Ranges {
		used[first] = used[first] || other != name
	}
	count := pool.count()
	start := int(hashName(l.path+name) % uint32(count)) // emperors beside this one begin elsewhere
	for i := range count {
		first := pool.First + (start+i)%count*vassal.RangeSize
		if !used[first] && free(first) && pool.apart(l.file.Ranges, name, first) {
			l.renewRange(name, first)
			return first, nil
		}
	}
	return 0, fmt.Errorf("all %d ranges of uids in %s are leased; widen userns-pool in the emperor's ini, or remove old names from %s", count, pool, l.path)
}

// apart says whether a range has nothing of others', which were leased from another
// pool.
func (p IDPool) apart(ranges map[string]int, name string, first int) bool {
	for other, theirs := range ranges {
		if other != name && rangesMeet(first, theirs) {
			return false
		}
	}
	return true
}

// rangesMeet says of two ranges, by their first ids, whether they have one in common.
func rangesMeet(a, b int) bool { return a < b+vassal.RangeSize && b < a+vassal.RangeSize }

// renewRange leases to a vassal the range that it has.
func (l *Leases) renewRange(name string, first int) {
	if l.file.Ranges[name] == first {
		return
	}
	if l.file.Ranges == nil {
		l.file.Ranges = map[string]int{}
	}
	l.file.Ranges[name], l.dirty = first, true
}

// leaseTries is how often a range is leased anew that another emperor has leased at
// the same time.
const leaseTries = 100

// leaseRange leases a range of ids that no emperor beside this one has; when all are
// leased, names that are gone give theirs.
func (e *Emperor) leaseRange(name string) (int, error) {
	pool := e.Config.UsersPool
	if pool == (IDPool{}) {
		pool = defaultPool
	}
	if err := pool.free(idFiles); err != nil {
		return 0, fmt.Errorf("the pool of uids %s is not free: %w", pool, err)
	}
	for range leaseTries {
		others, err := e.Leases.rangesBeside()
		if err != nil {
			return 0, err
		}
		had := e.Leases.file.Ranges[name]
		first, err := e.Leases.Range(pool, name, others)
		if err != nil && e.Leases.release(e.present) {
			first, err = e.Leases.Range(pool, name, others)
		}
		if err != nil || first == had || e.Instance == nil { // without an instance it only checks
			return first, err
		}
		e.saveLeases()
		e.Leases.dirty = true // the router is still to be told of others
	}
	return 0, errors.New("other emperors lease the same ranges of uids again and again; give each its own userns-pool")
}
