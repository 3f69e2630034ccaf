// Package tuntest helps tests of the router: devices in memory and packets
// built by hand, independently of the code under test.
package tuntest
