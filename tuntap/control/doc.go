// Package control joins the emperor with the router process and the bridges.
//
// The emperor's side is the Keeper: it starts the router with one end of a
// socket pair, tells it the networks, has every jail hand its devices over
// again, and lets it serve; a router that dies is started anew in the same
// way, before it reads a packet. The router's side is Main: it gives its
// rights away, then runs tuntap.Router and answers the keeper.
//
//	keeper                                router
//	start, descriptor 3 ────────────────► drop uid, capabilities, seccomp
//	add NETWORK + device, listener ─────►
//	(jails: hand-over by the socket) ───► peers, registrations
//	serve ──────────────────────────────► reads packets from here on
//	              ◄── registered, refused, identify + pidfd, closed
//	update NETWORK, identified ─────────►
//	snapshot ─────────────────────────► ◄── counters
//
// Bridges does the same for the processes that carry the packets of one device
// each to a foreign router: it connects, greets the router, and gives
// the device and the connection to the process, which runs tuntap.Bridge
// (BridgeMain).
//
// A router whose keeper is gone goes on: nobody dies with the emperor. It waits at
// its door for the next one, whose Keeper adopts it: it asks for everything that
// the router has, tells it what is different now, and settles.
package control
