// Package dump asks the kernel for lists of links, addresses and routes on a host
// where these come and go all the time.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// tries bounds how often a list is asked for again.
const tries = 20

// Whole returns a list that the kernel has not changed while it was read. Where it
// always changes, as with containers that start by the dozen, it is the last one: an
// entry may be missing or twice, which the kernel's next announcement tells of.
func Whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range tries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

// Links are those of the caller's network namespace.
func Links() ([]netlink.Link, error) { return Whole(netlink.LinkList) }

// Addrs are the addresses of a family, of all devices or of one.
func Addrs(link netlink.Link, family int) ([]netlink.Addr, error) {
	return Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
}
