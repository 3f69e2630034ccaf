package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"unsafe"

	"fiefdom/vassal"
)

// writePIDFile writes the emperor's pid where emperor-pidfile says, and removes
// it at the end.
func (r *runner) writePIDFile() error {
	path := r.config.PIDFile
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644); err != nil {
		return fmt.Errorf("emperor-pidfile: %w", err)
	}
	r.later(func() error { return remove(path) })
	return nil
}

// statsListener listens where emperor-stats says; nil if it does not.
func (r *runner) statsListener() (net.Listener, error) {
	return r.listenFor("emperor-stats", r.config.Stats, vassal.SocketRights{})
}

// commandLine is the memory where the kernel finds this process' command line.
var commandLine []byte

// ownArgs gives os.Args strings of their own, and returns them: until then they
// share the command line's memory, and with it whatever name the process gets.
func ownArgs() []string {
	length := 0
	for _, arg := range os.Args {
		if arg == "" || uintptr(unsafe.Pointer(unsafe.StringData(arg))) != uintptr(unsafe.Pointer(unsafe.StringData(os.Args[0])))+uintptr(length) {
			break // not the kernel's: they lie one behind the other, a NUL byte after each
		}
		length += len(arg) + 1
	}
	if length > 0 {
		commandLine = unsafe.Slice(unsafe.StringData(os.Args[0]), length)
	}
	for i, arg := range os.Args {
		os.Args[i] = strings.Clone(arg)
	}
	return os.Args
}

// nameProcess makes top and ps show a name for this process, as far as they and
// the length of its command line allow: 15 bytes of its comm, and the command
// line, which has to be written in its place.
func nameProcess(name string) error {
	if last := len(commandLine) - 1; last > 0 {
		clear(commandLine)
		copy(commandLine[:last], name)
	}
	return os.WriteFile("/proc/self/comm", []byte(name), 0)
}
