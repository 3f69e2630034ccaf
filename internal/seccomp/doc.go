// Package seccomp makes the filter of system calls that a confined vassal's app
// has (seccomp(2)): the list that containers usually have, for the capabilities
// that the app keeps.
//
// The list is data of github.com/moby/profiles; here is what becomes of it: a
// program for the kernel, with other architectures refused, calls that this list
// has never heard of answered with ENOSYS, and arguments that the kernel takes
// for 32 bits compared as such.
package seccomp

//go:generate go run numbers_gen.go amd64 arm64
