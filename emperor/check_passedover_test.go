package emperor

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Who named his ini another way hears of it from check alone: the emperor has
// to pass over whatever else is in the folder.
func TestCheckTellsOfFilesThatAreNoInis(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := goodEmperor(t, "emperor = "+dir+"\nemperor-extra-extension = .cfg\n")
	for _, name := range []string{"blog.ini", "shop.cfg", ".draft.conf", "shop.ini~", "README", "app.conf", "mail.INI", "old.yml"} {
		write(t, filepath.Join(dir, name), "[uwsgi]\ncommand = /bin/true\n")
	}
	errs, err := Check(c, nil)
	if err != nil || errs.Failed() {
		t.Fatal(err, errs)
	}
	var got []string
	for _, e := range errs {
		got = append(got, filepath.Base(e.Pos.File)+": "+e.Message)
	}
	const why = ": no vassal: the names of inis end in .ini"
	if want := []string{"app.conf" + why, "mail.INI" + why, "old.yml" + why}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
