package emperor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// A tenant's file that becomes a link to another tenant's, and a file again, all
// the time: no look takes the other's file for what lies there by his own will. // T26
func TestLookAtSwappedInis(t *testing.T) {
	nettest.Root(t)
	const owner, other = 61200, 61201
	dir := sharedDir(t)
	path, link, target := filepath.Join(dir, "blog.ini"), filepath.Join(dir, "link"), filepath.Join(dir, "others.ini")
	for file, uid := range map[string]int{path: owner, target: other} {
		write(t, file, "[uwsgi]\n")
		if err := os.Chown(file, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(target, link), os.Lchown(link, owner, owner)); err != nil {
		t.Fatal(err)
	}
	done, swapped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-done:
				swapped <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				swapped <- err
				return
			}
		}
	}()
	c := &Config{Tyrant: true}
	files, links := 0, 0
	for range 200_000 {
		f, err := c.look(path, "")
		switch {
		case err != nil:
			t.Error(err)
		case f.owner.uid == owner:
			files++
		case f.refused != "":
			links++
		default:
			t.Error("a link of another uid was looked at, and is not refused")
		}
		if t.Failed() {
			break
		}
	}
	close(done)
	if err := <-swapped; err != nil {
		t.Fatal(err)
	}
	if !t.Failed() && (files == 0 || links == 0) {
		t.Errorf("%d looks saw the file, %d the link", files, links)
	}
}
