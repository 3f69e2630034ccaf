package control

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How often the router looks at its memory, and how much (bytes allocated
// since) is worth a collection. Moving packets allocates nothing.
const (
	giveBackInterval = 2 * time.Second
	giveBackBytes    = 256 << 10
)

// giveBack returns to the kernel what handed-over devices and answered
// questions have left in the heap: a router is often one of hundreds of
// idle processes, and Go's collector alone waits for the heap to double.
// It does not return.
func giveBack() {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var before uint64
	for range time.Tick(giveBackInterval) {
		metrics.Read(s)
		if now := s[0].Value.Uint64(); now-before > giveBackBytes {
			before = now
			debug.FreeOSMemory()
		}
	}
}
