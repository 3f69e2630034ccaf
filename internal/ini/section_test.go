package ini

import (
	"os"
	"path/filepath"
	"testing"
)

// Where every section counts, each option is told with the section that it is in,
// also one that another file or a condition brings.
func TestEverySection(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.ini": "[one]\na = 1\n\n[two:x]\nif-env = PATH\nb = 2\nendif =\ninclude = b.ini\n[one]\nd = 4\n",
		"b.ini": "[three]\nc = 3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Load("a.ini", Options{Dir: dir, Every: true, LookupEnv: func(string) (string, bool) { return "x", true }})
	if err != nil || len(f.Warnings) > 0 {
		t.Fatal(err, f.Warnings)
	}
	want := map[string]string{"a": "one", "b": "two:x", "c": "three", "d": "one"}
	seen := 0
	for _, p := range f.Pairs {
		if section, ok := want[p.Key]; ok {
			seen++
			if got := f.Section(p.Pos).Name; got != section {
				t.Errorf("%s at %s is in %q, want %q", p.Key, p.Pos, got, section)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d options: %v", seen, len(want), f.Pairs)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.ini"), []byte("; lost\nx = 1\n[one]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("a.ini", Options{Dir: dir, Every: true}); err == nil || err.Error() != "a.ini:2: x = 1 is in no section, so it would not count; write it below one" {
		t.Errorf("before the first section: %v", err)
	}
}
