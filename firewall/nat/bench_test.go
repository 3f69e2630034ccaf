package nat

import (
	"log/slog"
	"testing"

	"fiefdom/internal/nettest"
)

// BenchmarkApply is what a network adds to the emperor's start: the first time,
// and when all is as it should be.
func BenchmarkApply(b *testing.B) {
	ns := nettest.NewNS(b)
	ns.Run(b, "ip", "tuntap", "add", "dev", "fief0", "mode", "tun")
	for _, fresh := range []bool{true, false} {
		b.Run(map[bool]string{true: "fresh", false: "again"}[fresh], func(b *testing.B) {
			ns.Do(b, func() {
				h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if fresh {
						b.StopTimer()
						if err := h.Remove(); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					if err := h.Apply([]Network{network()}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkRemove is what a network adds to the emperor's end.
func BenchmarkRemove(b *testing.B) {
	ns := nettest.NewNS(b)
	ns.Run(b, "ip", "tuntap", "add", "dev", "fief0", "mode", "tun")
	ns.Do(b, func() {
		h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			b.StopTimer()
			if err := h.Apply([]Network{network()}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := h.Remove(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
