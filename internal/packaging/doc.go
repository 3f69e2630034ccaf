// Package packaging holds what an installation has beside the binary: the unit of
// systemd, the emperor's first ini, and the scripts of the Debian package, which
// "make deb" makes. The tests install it in a world of their own, and run there
// what the pages of docs show.
package packaging
