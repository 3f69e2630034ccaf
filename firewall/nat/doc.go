// Package nat keeps the host's side of a network: forwarding, and the rules in
// the host's netfilter that let a pool out through an uplink by masquerading.
//
// An instance has three chains of its own for each family that its pools have,
// and one jump to each, appended, so that what the operator wrote comes first:
//
//	nat    POSTROUTING ─► fiefdom-NAME-post   pool → uplink: masquerade
//	filter FORWARD     ─► fiefdom-NAME-fwd    pool → uplink and replies: accept
//	                                          into the pool from elsewhere, unless DNATed: drop
//	                                          other sources from the device: drop
//	                                          from an uplink that forwards for us, not replies: drop
//	filter INPUT       ─► fiefdom-NAME-in     pool → gateway: ping, DNS, replies: accept
//
// What none of these decides goes on to the host's own policy. Contents change
// in one iptables-restore for each family; nobody else's rule is touched.
//
// Forwarding is switched on per device, where the kernel can. An uplink that
// forwards only because of us gets a guard: of what comes in by it only replies
// and what DNAT let in go on, so the host forwards nothing that it did not
// before. The guard goes when the host's owner switches forwarding on for all
// devices. What was switched on is noted in a file and stays on at the end.
//
// The package runs iptables and belongs in the emperor alone. All its work is
// done on the caller's thread, in the caller's network namespace.
package nat
