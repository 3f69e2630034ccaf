// Package responder answers the DNS questions of vassals, as a process of its own
// without rights. On each address of a router's, and of the host's in the kernel's
// bridges, it knows the vassals of the networks that the asker is on, and asks the
// host's resolvers about everything else.
//
//	vassal ── UDP or TCP, port 53 of the address ──► who asks? (socket and source)
//	                                                 within his budget?
//	          its own answer, of 5 s ◄── blog, blog.fief0, blog.fiefdom.internal, PTR of the pool
//	                                     else: cache ── else: a resolver of the host's, the next if it is silent
//
// The emperor's side is the Keeper: it starts the process and feeds it, with sockets
// too, which come and go with bridges and outlive the process. A process whose
// emperor is gone goes on with what it knows; the next emperor's begins at the same
// sockets, and then ends it.
package responder
