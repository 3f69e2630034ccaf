package emperor

import (
	"net/netip"
)

// present says whether an ini of this name is there now.
func (e *Emperor) present(name string) bool { return e.vassals[name] != nil }

// leaseUID leases a uid; when all are leased, names that are gone give theirs.
func (e *Emperor) leaseUID(name string) (int, error) {
	uid, err := e.Leases.UID(name)
	if err != nil && e.Leases.release(e.present) {
		uid, err = e.Leases.UID(name)
	}
	return uid, err
}

// leaseAddress leases an address; when all are leased, names that are gone
// give theirs.
func (e *Emperor) leaseAddress(pool netip.Prefix, name string, taken func(netip.Addr) bool) (netip.Addr, error) {
	a, err := e.Leases.Address(pool, name, taken)
	if err != nil && e.Leases.release(e.present) {
		a, err = e.Leases.Address(pool, name, taken)
	}
	return a, err
}

// lease gives the vassal an address in every prefix of the network.
func (e *Emperor) lease(n *Network, name string) ([]netip.Addr, error) {
	var leased []netip.Addr
	for _, p := range n.Addresses {
		a, err := e.leaseAddress(p.Masked(), name, func(a netip.Addr) bool {
			holder, declared := e.claims.Holder(a)
			return a == p.Addr() || declared && holder != name
		})
		if err != nil {
			return nil, err
		}
		leased = append(leased, a)
	}
	return leased, nil
}

// settleLeases saves new leases and tells the router about them.
func (e *Emperor) settleLeases() {
	if !e.Leases.dirty {
		return
	}
	e.saveLeases()
	e.reserve()
}

// saveLeases writes the leases. When it cannot be done vassals run all the
// same, and it is tried again with each scan.
func (e *Emperor) saveLeases() {
	before := e.Leases.unsaved
	err := e.Leases.save()
	switch {
	case err != nil && !before:
		e.Log.Error("leases are not saved; addresses and uids may change with the next emperor until they are", "err", err)
	case err == nil && before:
		e.Log.Info("leases are saved again")
	}
}
