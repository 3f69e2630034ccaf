package plaintext

import (
	"testing"
	"time"
)

func TestTexts(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Text("käse\tone\ntwo"), "käse\tone\ntwo"},
		{Text("a\x1b]0;b\x07c"), "a?]0;b?c"},
		{Text("C1 \u009b2J, \x7f, \r"), "C1 ?2J, ?, ?"},
		{Text("no text \xff\xfe"), "no text ??"},
		{Text("\u202etxt.exe\u202c, \u2066x\u2069"), "?txt.exe?, ?x?"},
		{Text("می\u200cخواهم"), "می\u200cخواهم"}, // what a script needs to be read
		{Line("a\x1b[2J\n\tb\xff"), "a?[2J  b?"},
		{Size(0), "0B"},
		{Size(999), "999B"},
		{Size(1000), "1.0K"},
		{Size(1 << 40), "1.0T"},
		{Count(9999), "9999"},
		{Count(10000), "10k"},
		{Count(18446744073709551615), "18E"},
		{Age(59 * time.Second), "59s"},
		{Age(-time.Second), "0s"},
		{Age(50 * time.Hour), "2d"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}
