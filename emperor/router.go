package emperor

import (
	"errors"
	"net/netip"
	"os"
	"sync"

	"fiefdom/vassal"
)

// reserve tells the router whose the declared and leased addresses are.
func (e *Emperor) reserve() {
	e.renamed = true
	for _, n := range e.Networks {
		if e.Reserve == nil {
			return
		}
		reserved := map[netip.Addr]string{}
		for _, p := range n.Addresses {
			for name, a := range e.Leases.file.Addresses[p.Masked()] {
				if _, ok := e.vassals[name]; ok {
					reserved[a] = name
				}
			}
		}
		for a, c := range e.claims.byAddr {
			reserved[a] = c.vassal
		}
		if err := e.Reserve(n.Device, reserved); err != nil {
			e.Log.Error("reserve addresses", "network", n.Device, "err", err)
		}
	}
}

// Registered takes the router's word that a vassal has an address.
func (e *Emperor) Registered(network, name string, addr netip.Addr) {
	e.jails.Range(func(_, j any) bool {
		jail := j.(*vassal.Jail)
		if jail.Name == name {
			jail.Registered(network, addr)
			e.keepJail(jail)
			go e.call(func() { e.renamed = true }) // the loop may be waiting for the router
		}
		return true
	})
}

// Rejoin hands the devices of all jails to a new router.
func (e *Emperor) Rejoin() error {
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	e.jails.Range(func(_, j any) bool {
		jail := j.(*vassal.Jail)
		wg.Go(func() {
			if err := jail.HandOver(); err != nil {
				go e.Lost(jail.Name, err.Error()) // the loop may be waiting for the router
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
		return true
	})
	wg.Wait()
	return errors.Join(errs...)
}

// Identify says whose process a pidfd is, by its network namespace; "" when
// it is nobody's. The pidfd stays the caller's.
func (e *Emperor) Identify(pidfd *os.File) string {
	inode, err := vassal.NamespaceOf(pidfd)
	if err != nil {
		e.Log.Debug("identify", "err", err)
		return ""
	}
	if j, ok := e.jails.Load(inode); ok {
		return j.(*vassal.Jail).Name
	}
	return ""
}
