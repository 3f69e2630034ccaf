// Package tuntap moves packets between vassals and the host.
//
// A [Router] owns, for each network, a tun device of the host, a listening
// unix socket and the peers: devices that the emperor handed over ([HandOver])
// and uWSGI's own devices, which speak frames over the socket. A packet goes
// this way, and meets no lock on it:
//
//	from a peer:   well-formed? ─ registered: source is the peer's? ─ chain out ─ unregistered: register
//	               ─ the peer's out rules ─ a route: another router's gateway
//	               ─ isolate ─ table: a peer (direct) ─ chain in ─ its in rules ─ its device
//	                           else the host's device
//	from the host: well-formed? ─ table: a peer ─ chain in ─ its in rules ─ its device
//	from another router's gateway: is it named? ─ well-formed? ─ source nobody's here? ─ as from the host
//
// A [Bridge] is the other way round: a device of ours towards the socket of a
// router that takes no hand-over.
//
// Every drop of a Router has one [Reason] and a counter; see path.go for the decisions
// and loop.go for the reads and writes.
//
// Threads move the packets (see [Router.Threads]); what belongs to one of them is
// a shard, in shard.go, and what they share is in router.go and peer.go. A
// device is read by one shard and written by any. Policy and table are
// snapshots that never change. What a packet leaves behind (the memory of
// verdicts and of fragments) belongs to the shard that read it, what several
// count or note is atomic, and only the streams of frames have a lock each. The
// first shard also opens and closes peers and reads their streams; others tell
// it by its mailbox. A closed peer's descriptor lives on until every shard has
// been between two drains.
package tuntap
