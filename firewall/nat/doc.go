// Package nat keeps the host's side of a network: forwarding, the rules in the
// host's netfilter that let a pool out through an uplink by masquerading, and
// those by which ports of the host lead to vassals.
//
// An instance has chains of its own for each family that its pools have, and
// one jump to each, appended, so that what the operator wrote comes first:
//
//	filter FORWARD      ─► fiefdom-NAME-fwd   pool → uplink and replies: accept
//	nat    PREROUTING   ─► fiefdom-NAME-dns   pool → gateway, DNS: to the port where names are answered, if not 53
//	                                          into the pool from elsewhere, unless DNATed: drop
//	                                          other sources from the device: drop
//	                                          from who forwards for us only, not replies, not DNATed: drop
//	filter INPUT        ─► fiefdom-NAME-in    pool → gateway: ping, DNS, replies: accept
//	mangle PREROUTING   ─► fiefdom-NAME-dev   from the device: loopback addresses, flows over the limit: drop
//	nat    PREROUTING   ─► fiefdom-NAME-pre   for the host itself: what is published: DNAT
//	nat    OUTPUT       ─► fiefdom-NAME-out   the same of its own programs, and what is published by loopback
//	nat    POSTROUTING  ─► fiefdom-NAME-post  pool → uplink, from the host's loopback, from the pool into it: masquerade
//
// What none of these decides goes on to the host's own rules and policy: above
// all what is published, once it is translated. Contents change in one
// iptables-restore for each family; nobody else's rule is touched.
//
// What is published hangs in a tree of chains, fiefdom-NAME-pNNN, by port
// (dispatch.go). The client's address is kept but where no answer would find
// back: from the host's loopback, and from a vassal to one of its own network.
// Packets from 127.0.0.1 may leave by the router's device only if its
// route_localnet is on, and answers to ::1 need a route there (loopback.go).
// Flows of UDP that go on as before are ended (conntrack.go).
//
// Forwarding is switched on per device, where the kernel can. A device that
// forwards only because of us gets a guard: of what comes in by it only replies
// and what DNAT let in go on, so the host forwards nothing that it did not
// before. The guard goes when the host's owner switches forwarding on for all
// devices. What was switched on is noted in a file and stays on at the end, but
// for route_localnet, which is taken back when nothing needs it.
//
// Collisions follows the host's own rules for a packet to each published port,
// and says who closes it (collision.go, walk.go).
//
// The package runs iptables and belongs in the emperor alone. All its work is
// done on the caller's thread, in the caller's network namespace.
package nat
