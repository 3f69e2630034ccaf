package seccomp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkPacket sends a packet and takes it again, as it is and behind the filter
// of a confined app. Nothing else of its confinement is asked for each packet.
func BenchmarkPacket(b *testing.B) {
	filter, err := Compile(Wish{})
	if err != nil {
		b.Fatal(err)
	}
	for _, filtered := range []bool{false, true} {
		name := "plain"
		if filtered {
			name = "filtered"
		}
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread() // a filter is never taken away: the thread ends with the benchmark
			if filtered {
				if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
					b.Fatal(err)
				}
				if err := Install(filter); err != nil {
					b.Fatal(err)
				}
			} else {
				defer runtime.UnlockOSThread()
			}
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer unix.Close(ends[0])
			defer unix.Close(ends[1])
			packet := make([]byte, 64)
			for b.Loop() {
				if err := unix.Sendto(ends[0], packet, 0, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := unix.Read(ends[1], packet); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
