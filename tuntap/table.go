package tuntap

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// ownerKind says whose a destination is.
type ownerKind uint8

const (
	ownerHost ownerKind = iota // the zero value: what is nobody's is the host's
	ownerPool                  // of the pool, and nobody's: never sent to the host, which would send it back
	ownerPeer
	ownerNames // the host's, who answers vassals' questions for names there
	ownerNever // the host's loopback: no packet from outside may be for it, whatever the rules say
)

// owner is what the table knows of a prefix.
type owner struct {
	kind ownerKind
	peer *peer // of ownerPeer
}

// table is the one table of a network, longest prefix first. It is used
// twice: to route by destination, and to check that a source is the sender's.
// It never changes: with and without return another one, which shares with the
// old what is the same.
type table bart.Table[owner]

func (t *table) tree() *bart.Table[owner] { return (*bart.Table[owner])(t) }

func (t *table) owner(a netip.Addr) owner {
	o, _ := t.tree().Lookup(a)
	return o
}

func (t *table) with(pfx netip.Prefix, o owner) *table {
	return (*table)(t.tree().InsertPersist(pfx, o))
}

func (t *table) without(pfx netip.Prefix) *table { return (*table)(t.tree().DeletePersist(pfx)) }

// holder returns the peer other than p that has pfx, a part of it, or a
// prefix around it.
func (t *table) holder(pfx netip.Prefix, p *peer) *peer {
	if o, ok := t.tree().LookupPrefix(pfx); ok && o.kind == ownerPeer && o.peer != p {
		return o.peer
	}
	if pfx.IsSingleIP() {
		return nil
	}
	for _, o := range t.tree().Subnets(pfx) {
		if o.kind == ownerPeer && o.peer != p {
			return o.peer
		}
	}
	return nil
}

// newTable builds the table of a network: its pool, its own addresses, its
// peers. A peer's prefix that is the router's own now is taken from it.
func newTable(cfg *NetworkConfig, peers []*peer) *table {
	t := new(bart.Table[owner])
	for _, pfx := range loopback {
		t.Insert(pfx, owner{kind: ownerNever})
	}
	for _, pfx := range cfg.Pool {
		t.Insert(pfx.Masked(), owner{kind: ownerPool})
	}
	for _, p := range peers {
		for _, pfx := range p.holds.Load().prefixes {
			t.Insert(pfx, owner{kind: ownerPeer, peer: p})
		}
	}
	own := owner{kind: ownerHost}
	if cfg.NamesAt != 0 {
		own.kind = ownerNames
	}
	for _, a := range cfg.Own {
		t.Insert(single(a), own)
	}
	return (*table)(t)
}

var loopback = prefixes("127.0.0.0/8", "::1/128")

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
