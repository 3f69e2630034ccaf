package firewall

import (
	"fmt"
	"testing"
)

// BenchmarkVerdict shows why a chain is compiled: the same rules of either
// family, none of which match, by masked integers and by netip.Prefix.Contains.
func BenchmarkVerdict(b *testing.B) {
	for _, n := range []int{1, 31, 1000} {
		var texts []string
		for i := range n {
			texts = append(texts, fmt.Sprintf("deny any 10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("deny any fd00:%x::/32", i))
		}
		rules := mustRules(b, texts...)
		chain := NewChain(rules)
		for _, family := range []struct {
			name string
			f    *Flow
		}{
			{"v4", flow("192.0.2.1", "198.51.100.1", protoTCP, 80)},
			{"v6", flow("2001:db8::1", "2001:db8::2", protoTCP, 80)},
		} {
			b.Run(fmt.Sprintf("compiled/%s/rules=%d", family.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					chain.Verdict(family.f)
				}
			})
			b.Run(fmt.Sprintf("netip/%s/rules=%d", family.name, n), func(b *testing.B) {
				for b.Loop() {
					naive(rules, family.f)
				}
			})
		}
	}
}
