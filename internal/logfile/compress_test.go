package logfile

import (
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// A backup that is made just when the compressing of those before is done is
// compressed too, although nothing is rotated after it.
func TestLastBackupIsCompressed(t *testing.T) {
	dir := t.TempDir()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var f *File
	var late atomic.Bool
	f, err = Open(Place{Folder: folder, Name: "log", As: func(do func() error) error {
		err := do()
		if late.CompareAndSwap(true, false) {
			f.Rotate()
			if _, err := io.WriteString(f, "three\n"); err != nil {
				t.Error(err)
			}
		}
		return err
	}}, Rules{Compress: true}, false)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "one\n")
	f.Tidy()
	f.tidying.Wait()
	write(t, f, "two\n")
	late.Store(true)
	f.compressLater() // there is nothing to do, until it is done
	f.tidying.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		if e.Name() != "log" && !strings.HasSuffix(e.Name(), zipped) {
			t.Errorf("%s is not compressed", e.Name())
		}
	}
	if text, files := everything(t, dir); text != "one\ntwo\nthree\n" || files != 2 {
		t.Errorf("%q in %d files", text, files)
	}
}
