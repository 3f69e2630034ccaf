package firewall

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkMemo compares a chain whose rules do not match with a memo of it: for
// a flow that it knows, and for one that it never met, as in a scan.
func BenchmarkMemo(b *testing.B) {
	for _, n := range []int{1, 31, 1000} {
		rules := make([]Rule, n)
		for i := range rules {
			rules[i] = Rule{Action: Deny, Dst: netip.MustParsePrefix("192.0.2.1/32")}
		}
		c := NewChain(rules)
		f := Flow{Src: netip.MustParseAddr("10.9.0.7"), Dst: netip.MustParseAddr("10.9.0.8"), Proto: 17, HasPorts: true, SrcPort: 1, DstPort: 2}
		b.Run(fmt.Sprintf("without/rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Verdict(&f)
			}
		})
		b.Run(fmt.Sprintf("hit/rules=%d", n), func(b *testing.B) {
			var m Memo
			b.ReportAllocs()
			for b.Loop() {
				m.Verdict(c, &f)
			}
		})
		b.Run(fmt.Sprintf("miss/rules=%d", n), func(b *testing.B) {
			var m Memo
			b.ReportAllocs()
			for b.Loop() {
				f.SrcPort++ // comes again after 65536 others
				m.Verdict(c, &f)
			}
		})
	}
}
