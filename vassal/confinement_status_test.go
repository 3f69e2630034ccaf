package vassal

import (
	"strings"
	"testing"
)

// What a kernel lacks is told whole, and to those whom it is about.
func TestLacks(t *testing.T) {
	for _, c := range []struct {
		abi             int
		counted, shared bool
		want            string
	}{
		{0, true, false, "Landlock ports"},
		{0, false, true, "Landlock scopes"},
		{2, true, true, "truncate ports scopes"},
		{2, false, false, "truncate"},
		{3, true, false, "ports"},
		{5, true, true, "scopes"},
		{6, true, true, ""},
	} {
		var got []string
		for _, lack := range lacks(c.abi, c.counted, c.shared) {
			word, _, _ := strings.Cut(strings.TrimPrefix(lack, "Landlock's "), " ")
			got = append(got, word)
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("version %d, counted %v, shared %v: %q, want %q", c.abi, c.counted, c.shared, got, c.want)
		}
	}
}
