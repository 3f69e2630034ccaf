package vassal

import (
	"sync"
	"testing"

	nsh "github.com/vishvananda/netns"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// BenchmarkJail makes jails one after another: the namespace alone, and with a
// device that has two addresses and default routes. The difference is what
// their configuration takes. Ending them is not measured: the kernel takes 20 ms
// and more for a device, but for many of them side by side.
func BenchmarkJail(b *testing.B) {
	nettest.Root(b)
	b.Run("namespace", func(b *testing.B) {
		var made []nsh.NsHandle
		for b.Loop() {
			ns, err := netns.New()
			if err != nil {
				b.Fatal(err)
			}
			made = append(made, ns)
		}
		for _, ns := range made {
			ns.Close()
		}
	})
	b.Run("furnished", func(b *testing.B) {
		var made []*Jail
		for b.Loop() {
			j, err := NewJail("bench", true, []Link{native("", "", vassal4, vassal6)})
			if err != nil {
				b.Fatal(err)
			}
			made = append(made, j)
		}
		var closing sync.WaitGroup
		for _, j := range made {
			closing.Go(func() {
				if err := j.Close(); err != nil {
					b.Error(err)
				}
			})
		}
		closing.Wait()
	})
}
