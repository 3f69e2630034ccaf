package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestBackupName(t *testing.T) {
	dir := t.TempDir()
	f := in(t, dir, Rules{BackupName: "old"})
	defer f.Close()
	for _, text := range []string{"one\n", "two\n", "three\n"} {
		f.Rotate()
		write(t, f, text)
	}
	if got := read(t, filepath.Join(dir, "old")) + read(t, filepath.Join(dir, "log")); got != "two\nthree\n" {
		t.Errorf("there is %q", got)
	}
}

func TestBackupNames(t *testing.T) {
	for name, want := range map[string]bool{
		"log.1700000000": true, "log.1700000000.gz": true, "log.1700000000.2": true, "log.1700000000.2.gz": true,
		"log": false, "log.1": false, "log.1.gz": false, "log.old": false, "log.1700000000.gz.tmp": false, "log.01700000000": false,
		"log.1700000000.0": false, "log.1700000000.x": false, "blog.1700000000": false, "log.-1700000000": false, "log.1700000000.1.1": false,
	} {
		if _, ok := parseBackup("log", name); ok != want {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

// A clock that goes back does not change which backup is the oldest.
func TestOrderOfBackups(t *testing.T) {
	dir := t.TempDir()
	f := in(t, dir, Rules{})
	defer f.Close()
	var names []string
	for i, at := range []int64{1_800_000_000, 1_800_000_000, 1_700_000_000, 1_900_000_000} {
		write(t, f, fmt.Sprintln(i))
		if err := errors.Join(f.setAside(time.Unix(at, 0)), f.open()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := f.backups()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		names = append(names, b.name)
	}
	if want := []string{"log.1800000000", "log.1800000000.1", "log.1800000000.2", "log.1900000000"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if text, _ := everything(t, dir); text != "0\n1\n2\n3\n" {
		t.Errorf("got %q", text)
	}
}

// What a process that was killed left half compressed is done by the next.
func TestTidyFinishesWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"log.1700000001": "one\n", "log.1700000002": "two\n", "log.1700000003": "three\n",
		"log.1700000002.gz.tmp": "half", "log.other.gz.tmp": "not ours", "log.old": "not ours",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	f := in(t, dir, Rules{Backups: 2, Compress: true})
	f.Tidy()
	f.tidying.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if text, files := everything(t, dir); text != "two\nthree\n" || files != 3 {
		t.Errorf("%q in %d files", text, files)
	}
	for name, want := range map[string]bool{
		"log.1700000001": false, "log.1700000002": false, "log.1700000002.gz": true, "log.1700000002.gz.tmp": false, "log.other.gz.tmp": true, "log.old": true,
	} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
