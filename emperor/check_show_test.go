package emperor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// A tenant's ini is shown with its owner's rights and the emperor's options; what
// nobody reads is not shown either.
func TestShowVassalAsItsOwner(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	c := goodEmperor(t, "emperor = "+dir+"\nemperor-tyrant = true\nvassal-set = who=%%n\n")
	path, link := filepath.Join(dir, "blog.ini"), filepath.Join(dir, "link.ini")
	write(t, path, "[uwsgi]\nenv = A=@(exec://id -u)\numask = nine\n[two]\nenv = B=%(who)\n")
	if err := os.Chown(path, 61200, 61200); err != nil {
		t.Fatal(err)
	}
	for section, want := range map[string]string{
		"":    "set = who=blog\nwho = blog\nenv = A=61200\numask = nine\n",
		"two": "set = who=blog:two\nwho = blog:two\nenv = B=blog:two\n",
	} {
		pairs, errs := ShowVassal(c, path, section)
		var got strings.Builder
		for _, p := range pairs {
			got.WriteString(p.Key + " = " + p.Value + "\n")
		}
		if got.String() != want || len(errs) > 0 {
			t.Errorf("section %q: got\n%s%v\nwant\n%s", section, got.String(), errs, want)
		}
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 61201, 61201); err != nil {
		t.Fatal(err)
	}
	if pairs, errs := ShowVassal(c, link, ""); len(pairs) > 0 || !errs.Failed() {
		t.Errorf("another's link: %v, %v", pairs, errs)
	}
}
