package phrase

import (
	"testing"
	"time"
)

func TestTexts(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Bytes(0), "0B"},
		{Bytes(999), "999B"},
		{Bytes(1000), "1.0K"},
		{Bytes(1 << 40), "1.0T"},
		{Count(9999), "9999"},
		{Count(10000), "10k"},
		{Count(18446744073709551615), "18E"},
		{Age(59 * time.Second), "59s"},
		{Age(-time.Second), "0s"},
		{Age(50 * time.Hour), "2d"},
		{Clean("a\x1b[2J\u009b\n\t\u202eb\xff"), "a?[2J?  ?b?"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

func TestGrown(t *testing.T) {
	if n := Grown[uint64](5, 7); n != 2 {
		t.Errorf("from 5 to 7 it grew by %d", n)
	}
	if n := Grown(7.5, 0.5); n != 0.5 {
		t.Errorf("one that began anew grew by %v", n)
	}
}

func TestFields(t *testing.T) {
	got := Fields(map[string]any{"next": "1.5s", "err": "two words", "events": 12.0, "addrs": []any{"a", "b"}, "none": ""})
	if want := ` addrs=a,b err="two words" events=12 next=1.5s none=""`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
