// Package nettest is for tests only: network namespaces of a test's own, a whole
// small world for end-to-end tests, and checks that nothing was left behind.
//
// Nothing here touches the network, the firewall or the mounts of the machine
// that runs the tests. What a test makes ends with the test.
//
// A [World] is what an emperor needs to believe that it has a machine:
//
//	 Host: net, mount, pid and cgroup namespace            Inet: net namespace
//	┌──────────────────────────────────────────┐          ┌────────────────────┐
//	│ /run /var/lib (empty)  /etc (a copy)     │   veth   │ knows no way to    │
//	│ eth0 198.51.100.1/24   2001:db8:198::1/64│══════════│ any pool: only NAT │
//	│ default route to Inet                    │          │ gets an answer     │
//	└──────────────────────────────────────────┘          └────────────────────┘
//	                                    eth0 198.51.100.2/24  2001:db8:198::2/64
package nettest
