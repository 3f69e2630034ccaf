package emperor

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"math/big"
	"net/netip"
	"os"

	"github.com/google/renameio/v2"
)

// Leases are what stays with a vassal's name across restarts of everything:
// its addresses, its uid, its range of uids. They are kept in leases.json of the state directory.
type Leases struct {
	path  string
	file  leaseFile
	dirty bool // leased since the last save

	unsaved bool // the last save failed
}

type leaseFile struct {
	// Addresses by prefix (10.9.0.0/16), then by vassal.
	Addresses map[netip.Prefix]map[string]netip.Addr `json:"addresses"`
	UIDs      map[string]int                         `json:"uids"`
	// First ids of the ranges of vassals with user namespaces of their own.
	Ranges map[string]int `json:"ranges,omitempty"`
	// Names in DNS that several vassals would have, and who has each.
	Names map[string]string `json:"names,omitempty"`
}

// The range of leased uids: free in Debian's and systemd's tables (systemd's
// UIDS-GIDS.md), above its dynamic users, below nobody's 65534.
const (
	firstUID = 61184
	lastUID  = 65518
)

// LoadLeases reads the file at path; one that is not there is empty.
func LoadLeases(path string) (*Leases, error) {
	l := &Leases{path: path}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("leases: %w; run it as root", err)
	case err == nil:
		err = json.Unmarshal(b, &l.file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("leases %s: %w; repair the file, or remove it to lease anew", path, err)
	}
	if err := l.file.check(); err != nil {
		return nil, fmt.Errorf("leases %s: %w; repair the file, or remove it to lease anew", path, err)
	}
	if l.file.Addresses == nil {
		l.file.Addresses = map[netip.Prefix]map[string]netip.Addr{}
	}
	if l.file.UIDs == nil {
		l.file.UIDs = map[string]int{}
	}
	return l, nil
}

// check finds what only an editor's hand can have done: two vassals with one
// uid could signal each other, with one address neither would be reached.
func (f *leaseFile) check() error {
	uids := map[int]string{}
	for name, uid := range f.UIDs {
		if other, ok := uids[uid]; ok {
			return fmt.Errorf("uid %d is leased to %q and to %q", uid, min(name, other), max(name, other))
		}
		uids[uid] = name
	}
	for name, first := range f.Ranges {
		for other, theirs := range f.Ranges {
			if name < other && rangesMeet(first, theirs) {
				return fmt.Errorf("the ranges of uids of %q and %q overlap", name, other)
			}
		}
	}
	addrs := map[netip.Addr]string{}
	for _, of := range f.Addresses {
		for name, a := range of {
			if other, ok := addrs[a]; ok && other != name {
				return fmt.Errorf("address %s is leased to %q and to %q", a, min(name, other), max(name, other))
			}
			addrs[a] = name
		}
	}
	return nil
}

// Holder is the name that an address is leased to, if any. The vassal may be
// gone.
func (l *Leases) Holder(a netip.Addr) (string, bool) {
	for pool, of := range l.file.Addresses {
		if !pool.Contains(a) {
			continue
		}
		for name, leased := range of {
			if leased == a {
				return name, true
			}
		}
	}
	return "", false
}

func (l *Leases) save() error {
	l.dirty = false
	b, err := json.MarshalIndent(l.file, "", "\t")
	if err == nil {
		err = renameio.WriteFile(l.path, append(b, '\n'), 0o600)
	}
	// gofail: var leasesSaved struct{}
	if l.unsaved = err != nil; err != nil {
		return fmt.Errorf("save leases: %w", err)
	}
	return nil
}

// Address leases an address of pool to a vassal, the same as before if it has
// one that is still free. taken says what nobody may have. Saving is the caller's.
func (l *Leases) Address(pool netip.Prefix, vassal string, taken func(netip.Addr) bool) (netip.Addr, error) {
	of := l.file.Addresses[pool]
	if of == nil {
		of = map[string]netip.Addr{}
		l.file.Addresses[pool] = of
	}
	if a, ok := of[vassal]; ok && pool.Contains(a) && !taken(a) {
		return a, nil
	}
	leased := make(map[netip.Addr]string, len(of))
	for name, a := range of {
		if name != vassal {
			leased[a] = name
		}
	}
	a, ok := probe(pool, vassal, func(a netip.Addr) bool { return taken(a) || leased[a] != "" })
	if !ok {
		return netip.Addr{}, fmt.Errorf("no address is left in %s; widen tuntap-router-address, or remove old names from %s", pool, l.path)
	}
	of[vassal], l.dirty = a, true
	return a, nil
}

// probe walks the pool from a place that the name gives, so that names keep
// their addresses even when the leases are lost.
func probe(pool netip.Prefix, name string, taken func(netip.Addr) bool) (netip.Addr, bool) {
	host := min(pool.Addr().BitLen()-pool.Bits(), 24) // of a bigger pool its first 16 million
	size := uint32(1) << host
	start := hashName(name) % size
	for i := range size {
		n := (start + i) % size
		if n == 0 || n == size-1 {
			continue // the network's own and its broadcast address
		}
		if a := nth(pool, n); !taken(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func hashName(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// nth is the address n places after the prefix's first.
func nth(pool netip.Prefix, n uint32) netip.Addr {
	b := pool.Masked().Addr().AsSlice()
	sum := new(big.Int).SetBytes(b)
	sum.Add(sum, new(big.Int).SetUint64(uint64(n)))
	a, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, len(b))))
	return a
}

// release forgets names that are not present, when leases run out, and says
// whether there were any.
func (l *Leases) release(present func(name string) bool) bool {
	absent := func(name string) bool { return !present(name) }
	before := len(l.file.UIDs)
	maps.DeleteFunc(l.file.UIDs, func(name string, _ int) bool { return absent(name) })
	found := len(l.file.UIDs) < before
	before = len(l.file.Ranges)
	maps.DeleteFunc(l.file.Ranges, func(name string, _ int) bool { return absent(name) })
	found = found || len(l.file.Ranges) < before
	for _, of := range l.file.Addresses {
		before := len(of)
		maps.DeleteFunc(of, func(name string, _ netip.Addr) bool { return absent(name) })
		found = found || len(of) < before
	}
	l.dirty = l.dirty || found
	return found
}

// renewUID leases to a vassal the uid that it runs under, unless that is
// another's, or none to lease.
func (l *Leases) renewUID(vassal string, uid int) {
	if uid < firstUID || uid > lastUID || l.file.UIDs[vassal] == uid {
		return
	}
	for _, other := range l.file.UIDs {
		if other == uid {
			return
		}
	}
	l.file.UIDs[vassal], l.dirty = uid, true
}

// renewAddress leases to a vassal the address of pool that it has, unless that
// is another's.
func (l *Leases) renewAddress(pool netip.Prefix, vassal string, a netip.Addr) {
	if _, held := l.Holder(a); held {
		return
	}
	if l.file.Addresses[pool] == nil {
		l.file.Addresses[pool] = map[string]netip.Addr{}
	}
	l.file.Addresses[pool][vassal], l.dirty = a, true
}

// UID leases a uid to a vassal: the one that it has, else one that nobody has, nor a
// vassal of an emperor beside this one.
func (l *Leases) UID(vassal string) (int, error) {
	if uid, ok := l.file.UIDs[vassal]; ok && uid >= firstUID && uid <= lastUID {
		return uid, nil
	}
	used := map[int]bool{}
	for _, uid := range l.file.UIDs {
		used[uid] = true
	}
	const size = lastUID - firstUID + 1
	for _, theirs := range []map[int]bool{l.uidsBeside(), nil} { // better one of theirs than none
		for i := range uint32(size) {
			uid := firstUID + int((hashName(vassal)%size+i)%size)
			if !used[uid] && !theirs[uid] {
				l.file.UIDs[vassal], l.dirty = uid, true
				return uid, nil
			}
		}
	}
	return 0, fmt.Errorf("all %d uids are leased; remove old names from %s", size, l.path)
}
