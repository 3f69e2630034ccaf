package firewall

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// A memo says what its chains say, and counts as they count, whatever is asked
// of it in between.
func TestMemoAgreesWithItsChains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(genRule), 0, 12)
		var asked, plain [2]*Chain
		for i := range asked {
			r := rules.Draw(t, "rules")
			asked[i], plain[i] = NewChain(r), NewChain(r)
		}
		var m Memo
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			f := genFlow(t)
			i := rapid.IntRange(0, 1).Draw(t, "chain")
			action, index := m.Verdict(asked[i], f)
			wantAction, wantIndex := plain[i].Verdict(f)
			if action != wantAction || index != wantIndex {
				t.Fatalf("chain %d, %+v: %v by rule %d; the chain says %v by %d", i, *f, action, index, wantAction, wantIndex)
			}
		}
		for i := range asked {
			if got, want := fmt.Sprint(asked[i].HitsSnapshot()), fmt.Sprint(plain[i].HitsSnapshot()); got != want {
				t.Fatalf("chain %d counted %s; want %s", i, got, want)
			}
		}
	})
}

func TestMemoDoesNotAllocate(t *testing.T) {
	c := NewChain(make([]Rule, 100))
	f := Flow{Src: netip.MustParseAddr("10.9.0.7"), Dst: netip.MustParseAddr("10.9.0.8"), Proto: 17, HasPorts: true, SrcPort: 1, DstPort: 2}
	var m Memo
	if n := testing.AllocsPerRun(100, func() { f.SrcPort++; m.Verdict(c, &f) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
