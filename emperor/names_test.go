package emperor

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostileNames are what somebody would try first.
var hostileNames = []string{
	"../../x", "..", ".", "/etc/passwd", "a/../../b", "; rm -rf /", "$(reboot)", "`id`", "a\nb", "a\rb", "a\x00b", "\x1b[2J", "a b", "-rf", "--help",
	"blog | shop", "%", "%%", "%2f", "a:b", "a.1", "ünïcödé", "\u202eini", "\xff\xfe", "a\u0000", strings.Repeat("x", 255), strings.Repeat("/", 255),
	strings.Repeat("x", 254) + "y", strings.Repeat("ü", 127), "", " ", "\t", "emperor", "expander.1", ".hidden",
}

// Whatever a vassal is called, what is named after it is one harmless path
// element of its own. // T32
func TestNamesSoak(t *testing.T) {
	seen := map[string]string{}
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "B", "7", "-", "_", ".", "..", "/", "%", "%2e", ";", "\n", "\x00", " ", "ü", "\xff", "\u202e", "$(", ")", "'", "\"", "|", "\x1b["}
	check := func(name string) {
		got := safeName(name)
		if other, taken := seen[got]; taken && other != name {
			t.Fatalf("%q and %q are both %q", name, other, got)
		}
		seen[got] = name
		if len(got) > 200 || name != "" && (got == "" || got[0] == '.') || strings.Trim(got, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.%") != "" {
			t.Fatalf("%q is %q", name, got)
		}
		if in := filepath.Join("/run/x", got); name != "" && (filepath.Dir(in) != "/run/x" || filepath.Base(in) != got) {
			t.Fatalf("%q leads to %s", name, in)
		}
		if printed := printable([]byte(name)); !utf8.ValidString(printed) || strings.ContainsAny(printed, "\n\r\x00\x1b") {
			t.Fatalf("%q is printed as %q", name, printed)
		}
	}
	for _, name := range hostileNames {
		check(name)
	}
	for range scaled(50_000, 1_000_000) {
		var b strings.Builder
		for range 1 + random.IntN(40) {
			b.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		if random.IntN(20) == 0 {
			b.WriteString(strings.Repeat(alphabet[random.IntN(len(alphabet))], 60))
		}
		check(b.String())
	}
}

// Nobody can choose a name whose files are those of another's long name. // T32
func TestLongNamesAreTheirOwn(t *testing.T) {
	for i := range 2000 {
		long := strings.Repeat("x", 240) + strconv.Itoa(i)
		got := safeName(long)
		var forged strings.Builder // what would be written like it
		for j := 0; j < len(got); j++ {
			if got[j] == '%' && j+2 < len(got) {
				if n, err := strconv.ParseUint(got[j+1:j+3], 16, 8); err == nil {
					forged.WriteByte(byte(n))
					j += 2
					continue
				}
			}
			forged.WriteByte(got[j])
		}
		if safeName(forged.String()) == got {
			t.Fatalf("%q is named as %q", forged.String(), long)
		}
	}
}

// The names that come from files: those that tables and logs cannot show are
// refused, the others are vassals. // T32
func TestFilesWithHostileNames(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{}
	for _, name := range hostileNames {
		if strings.ContainsAny(name, "/\x00") || name == "" || len(name)+len(iniSuffix) > maxName {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name+iniSuffix), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if printableName(name) {
			want[name] = true
		}
	}
	s := scan([]Monitor{{Dir: dir}})
	for _, name := range s.order {
		if !want[name] {
			t.Errorf("%q is a vassal", name)
		}
		delete(want, name)
	}
	if len(want) > 0 || len(s.errs) == 0 {
		t.Errorf("not found: %v; %v", want, s.errs)
	}
	for _, err := range s.errs {
		if text := err.Error(); !utf8.ValidString(text) || strings.ContainsAny(text, "\n\x1b") {
			t.Errorf("%q", text)
		}
	}
}
