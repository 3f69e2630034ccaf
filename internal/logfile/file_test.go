package logfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// in is a log in a folder of the test's.
func in(t *testing.T, dir string, r Rules) *File {
	t.Helper()
	f, err := openIn(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	f.Trouble = func(err error) { t.Errorf("trouble: %v", err) }
	return f
}

func openIn(dir string, r Rules) (*File, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return Open(Place{Folder: folder, Name: "log"}, r, false)
}

// everything is all that was ever written to the log, the oldest first, and how
// many files it is in.
func everything(t *testing.T, dir string) (text string, files int) {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	all, err := (&File{place: Place{Folder: folder, Name: "log"}}).backups()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, one := range all {
		b.WriteString(read(t, filepath.Join(dir, one.name)))
	}
	return b.String() + read(t, filepath.Join(dir, "log")), len(all) + 1
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, zipped) {
		return string(text)
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRotationLosesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		rules Rules
		line  int // bytes of one
		count int
		torn  bool // lines are longer than those that are kept together
	}{
		"short lines":       {Rules{MaxSize: MinSize}, 100, 5000, false},
		"long lines":        {Rules{MaxSize: MinSize}, LongLine, 50, false},
		"longer lines":      {Rules{MaxSize: MinSize}, 3 * MinSize, 5, true},
		"compressed":        {Rules{MaxSize: MinSize, Compress: true}, 1000, 1000, false},
		"all at one moment": {Rules{MaxAge: time.Nanosecond}, 100, 50, false},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			dir := t.TempDir()
			f := in(t, dir, tc.rules)
			var want strings.Builder
			for i := range tc.count {
				line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", tc.line))[:tc.line-1] + "\n"
				want.WriteString(line)
				if n, err := io.WriteString(f, line); n != len(line) || err != nil {
					t.Fatalf("%d of %d bytes, %v", n, len(line), err)
				}
			}
			f.tidying.Wait()
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			got, files := everything(t, dir)
			if got != want.String() {
				t.Errorf("%d bytes are left of %d", len(got), want.Len())
			}
			if files < 4 {
				t.Errorf("only %d files", files)
			}
			checkFiles(t, dir, tc.rules, tc.torn)
		})
	}
}

// checkFiles checks each file by itself.
func checkFiles(t *testing.T, dir string, r Rules, torn bool) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		text := read(t, filepath.Join(dir, e.Name()))
		if r.MaxSize > 0 && int64(len(text)) > r.MaxSize {
			t.Errorf("%s has %d bytes", e.Name(), len(text))
		}
		if !torn && !strings.HasSuffix(text, "\n") {
			t.Errorf("%s ends in a line", e.Name())
		}
		if r.Compress && e.Name() != "log" && !strings.HasSuffix(e.Name(), zipped) {
			t.Errorf("%s is not compressed", e.Name())
		}
	}
}

// Whatever is written, in whatever pieces, the disk never holds more than the
// files that are kept and the current one.
func TestDiskUseIsBounded(t *testing.T) {
	dir := t.TempDir()
	rules := Rules{MaxSize: MinSize, Backups: 3}
	f := in(t, dir, rules)
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 1000)
	for i := range 200 {
		if _, err := f.Write(piece[:1+(i*7919)%len(piece)]); err != nil {
			t.Fatal(err)
		}
		var used int64
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range names {
			st, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			used += st.Size()
		}
		if most := (int64(rules.Backups) + 1) * rules.MaxSize; used > most {
			t.Fatalf("%d bytes after piece %d, at most %d are allowed", used, i, most)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, files := everything(t, dir); files != rules.Backups+1 {
		t.Errorf("%d files", files)
	}
}

func TestRotateByAge(t *testing.T) {
	dir := t.TempDir()
	f := in(t, dir, Rules{MaxAge: time.Hour})
	defer f.Close()
	write(t, f, "young\n")
	write(t, f, "young too\n")
	f.born = f.born.Add(-2 * time.Hour)
	write(t, f, "old\n")
	write(t, f, "not old any more\n")
	if got := read(t, filepath.Join(dir, "log")); got != "old\nnot old any more\n" {
		t.Errorf("the log has %q", got)
	}
	if _, files := everything(t, dir); files != 2 {
		t.Errorf("%d files", files)
	}
}

func write(t *testing.T, f *File, text string) {
	t.Helper()
	if _, err := io.WriteString(f, text); err != nil {
		t.Fatal(err)
	}
}

// What others do to the file by its name is followed.
func TestFollowsItsName(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(path string) error
		ask  bool // to open it anew
		want string
	}{
		"moved":          {func(path string) error { return os.Rename(path, path+".old") }, false, "b\n"},
		"moved, asked":   {func(path string) error { return os.Rename(path, path+".old") }, true, "b\n"},
		"removed":        {os.Remove, false, "b\n"},
		"truncated":      {func(path string) error { return os.Truncate(path, 0) }, false, "b\n"},
		"untouched":      {func(string) error { return nil }, true, "a\nb\n"},
		"another's file": {func(path string) error { return os.WriteFile(path, []byte("new\n"), 0o600) }, false, "new\nb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			dir := t.TempDir()
			f := in(t, dir, Rules{})
			defer f.Close()
			write(t, f, "a\n")
			if err := tc.do(filepath.Join(dir, "log")); err != nil {
				t.Fatal(err)
			}
			f.looked = time.Time{}
			if tc.ask {
				f.looked = time.Now()
				f.Reopen()
			}
			write(t, f, "b\n")
			if got := read(t, filepath.Join(dir, "log")); got != tc.want {
				t.Errorf("the log has %q, want %q", got, tc.want)
			}
			if f.size != int64(len(tc.want)) {
				t.Errorf("it thinks of %d bytes", f.size)
			}
		})
	}
}

func TestNeverThroughALink(t *testing.T) {
	for name, lay := range map[string]func(dir string) error{
		"link":   func(dir string) error { return os.Symlink("victim", filepath.Join(dir, "log")) },
		"folder": func(dir string) error { return os.Mkdir(filepath.Join(dir, "log"), 0o755) },
		"FIFO":   func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "log"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			dir := t.TempDir()
			victim := filepath.Join(dir, "victim")
			if err := os.WriteFile(victim, []byte("mine\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := lay(dir); err != nil {
				t.Fatal(err)
			}
			if f, err := openIn(dir, Rules{}); err == nil {
				f.Close()
				t.Error("it was opened")
			}
			os.RemoveAll(filepath.Join(dir, "log"))
			f := in(t, dir, Rules{Compress: true})
			defer f.Close()
			f.Trouble = nil
			write(t, f, "a\n")
			// A link in place of the log, and backups that are links.
			os.Remove(filepath.Join(dir, "log"))
			if err := errors.Join(lay(dir), os.Symlink("victim", filepath.Join(dir, "log.1700000000"))); err != nil {
				t.Fatal(err)
			}
			f.Reopen()
			if n, err := io.WriteString(f, "b\n"); err == nil || n != 0 {
				t.Errorf("%d bytes were written, %v", n, err)
			}
			f.Tidy()
			f.tidying.Wait()
			if got := read(t, victim); got != "mine\n" {
				t.Errorf("the victim has %q", got)
			}
			if _, err := os.Lstat(filepath.Join(dir, "log.1700000000.gz")); err == nil {
				t.Error("the victim was compressed")
			}
		})
	}
}

// A folder in which nothing may be renamed: the file does not grow beyond what
// is allowed, and the rotation is made up for.
func TestWhatCannotBeRotatedDoesNotGrow(t *testing.T) {
	dir := t.TempDir()
	f := in(t, dir, Rules{MaxSize: MinSize})
	defer f.Close()
	as := f.place.As
	f.place.As = func(func() error) error { return unix.EACCES }
	piece := bytes.Repeat([]byte("line\n"), 100)
	written := 0
	for range 400 {
		f.looked = time.Now()
		n, err := f.Write(piece)
		if written += n; n < len(piece) && err == nil {
			t.Fatal("lost without an error")
		}
	}
	if st, err := f.file.Stat(); err != nil || st.Size() > MinSize || st.Size() != int64(written) {
		t.Errorf("%d bytes, %d were written, %v", st.Size(), written, err)
	}
	f.place.As, f.refused = as, time.Time{}
	write(t, f, "again\n")
	if got := read(t, filepath.Join(dir, "log")); got != "again\n" {
		t.Errorf("the log has %.100q", got)
	}
}

func TestOpenedIsToldOfEachFile(t *testing.T) {
	dir := t.TempDir()
	f := in(t, dir, Rules{})
	defer f.Close()
	var mu sync.Mutex
	var told []string
	f.Opened = func(file *os.File) {
		mu.Lock()
		defer mu.Unlock()
		st, err := file.Stat()
		if err != nil {
			t.Error(err)
		}
		told = append(told, fmt.Sprint(st.Size()))
	}
	write(t, f, "a\n")
	f.Rotate()
	write(t, f, "b\n")
	f.Reopen()
	write(t, f, "c\n")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"0", "2"}; !slices.Equal(told, want) {
		t.Errorf("sizes %q, want %q", told, want)
	}
}
