// Package tuntap moves packets between vassals and the host.
//
// A [Router] owns, for each network, a tun device of the host, a listening
// unix socket and the peers: devices that the emperor handed over ([HandOver])
// and uWSGI's own devices, which speak frames over the socket. One locked
// thread does all of it, so the packet path knows no locks:
//
//	from a peer:   well-formed? ─ registered: source is the peer's? ─ chain out ─ unregistered: register
//	               ─ the peer's out rules ─ isolate ─ table: a peer (direct) ─ chain in ─ its in rules ─ its device
//	                                                  else the host's device
//	from the host: well-formed? ─ table: a peer ─ chain in ─ its in rules ─ its device
//
// A [Bridge] is the other way round: a device of ours towards the socket of a
// router that takes no hand-over.
//
// Every drop has one [Reason] and a counter; see path.go for the decisions
// and loop.go for the reads and writes.
package tuntap
