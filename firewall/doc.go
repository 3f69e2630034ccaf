// Package firewall holds rules and turns them into verdicts: plain data and
// pure functions, without I/O, goroutines or a clock.
//
//	text ── ParseRule ──► Rule ── NewChain ──► Chain ── Verdict(Flow) ──► Action, index
//
// A rule is written as uWSGI's, with our additions at its end:
//
//	ACTION [SRC DST [PROTO [PORTS]]]
//
//	ACTION  allow, deny, or reject (denied and answered)
//	SRC DST an address (a host), an address with a mask, or any
//	PROTO   tcp, udp, sctp, icmp, icmp6, a number from 1 to 255, or any
//	PORTS   of the destination, such as 22,80,1000-2000
//
// What uWSGI's words mean is kept: a missing mask is a host, host bits are
// masked away, and an IPv4 address that is zero after masking (0.0.0.0,
// 0.0.0.0/0, 0.0.0.0/8) means any IPv4 address. What uWSGI silently takes for
// "allow" or leaves out (unknown actions, two words, masks out of range) is an
// error here. IPv6 is ours: :: and ::/0 mean any IPv6 address, every other
// prefix is taken as written. The word any means both families, and so does
// an action alone.
package firewall
