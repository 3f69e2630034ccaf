package tuntap

import (
	"testing"

	"pgregory.net/rapid"
)

// plainSum is RFC 1071 as it is written: two bytes at a time, folded each time.
func plainSum(s uint32, b []byte) uint16 {
	for i, c := range b {
		word := uint32(c)
		if i%2 == 0 {
			word <<= 8
		}
		s += word
		s = s>>16 + s&0xffff
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func TestSumIsThatOfTwoBytesAtATime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xfe, 0xff, 0x55}), 0, 300).Draw(t, "bytes")
		s := rapid.Uint32Range(0, 0x3ffff).Draw(t, "before")
		if got, want := fold(sum(s, b)), plainSum(s, b); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
		cut := rapid.IntRange(0, len(b)/2).Draw(t, "cut") * 2
		if got, want := fold(sum(sum(s, b[:cut]), b[cut:])), plainSum(s, b); got != want {
			t.Fatalf("in two parts: %#04x, want %#04x", got, want)
		}
	})
}

// Where the sum is the largest, nothing is lost at the top.
func TestSumOfOnes(t *testing.T) {
	ones := make([]byte, 1<<16)
	for i := range ones {
		ones[i] = 0xff
	}
	for n := range len(ones) / 1000 {
		if got, want := fold(sum(0xffff, ones[:n*1000+n%9])), plainSum(0xffff, ones[:n*1000+n%9]); got != want {
			t.Fatalf("%d bytes: %#04x, want %#04x", n*1000+n%9, got, want)
		}
	}
}
