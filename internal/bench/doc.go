// Package bench measures whole systems side by side, in one interleaved run: the
// kernel's veth and bridge, a real uWSGI emperor with its tuntap router, and us.
// Absolute figures drift by a factor of two from hour to hour on a shared
// machine; only ratios inside one round mean anything, and a round also measures
// the kernel against itself, to show what a ratio is worth.
//
// All of it is a test, for it lives in the worlds of internal/nettest. "go test"
// runs a few seconds of it, so that it does not rot; "make bench" all of it.
//
//	round 1: TCP ×1: veth uwsgi us kernel veth   TCP ×4: veth uwsgi us …   UDP: …
//	round 2: …
package bench
