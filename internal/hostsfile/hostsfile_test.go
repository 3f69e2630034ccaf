package hostsfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const others = "127.0.0.1\tlocalhost\n# a comment\n192.0.2.7 printer" // without a last newline

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBlocks(t *testing.T) {
	path := write(t, others)
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(Put(path, "one", "10.9.0.7 blog\n"))
	do(Put(path, "two", "10.8.0.7 shop\n"))
	do(Put(path, "one", "10.9.0.8 blog\n"))
	want := others + "\n" + Block("one", "10.9.0.8 blog\n") + Block("two", "10.8.0.7 shop\n")
	if got := text(t, path); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !Has(path, "one", "10.9.0.8 blog\n") || Has(path, "one", "10.9.0.7 blog\n") || Has(path, "three", "") {
		t.Error("Has")
	}
	if names, err := Instances(path); err != nil || fmt.Sprint(names) != "[one two]" {
		t.Error(names, err)
	}
	if got, err := Others(path); err != nil || got != others+"\n" {
		t.Errorf("%q, %v", got, err)
	}
	// Somebody adds lines behind and between.
	do(os.WriteFile(path, []byte(strings.Replace(want, "# fiefdom begin two", "192.0.2.8 mine\n# fiefdom begin two", 1)+"192.0.2.9 last\n"), 0))
	do(Remove(path, "one"))
	do(Remove(path, "three"))
	if got := text(t, path); got != others+"\n192.0.2.8 mine\n"+Block("two", "10.8.0.7 shop\n")+"192.0.2.9 last\n" {
		t.Errorf("got:\n%s", got)
	}
	do(Remove(path, "two"))
	if got := text(t, path); got != others+"\n192.0.2.8 mine\n192.0.2.9 last\n" {
		t.Errorf("got:\n%s", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o604 {
		t.Error(st.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
}

// A block that is as it should be is not written again, and a link stays one.
func TestNothingNeedless(t *testing.T) {
	path := write(t, others+"\n")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Put(link, "one", "10.9.0.7 blog\n"); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil || os.SameFile(before, after) != (i == 1) {
			t.Error(i, err)
		}
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone", err)
	}
}

// What is whose cannot be told: nothing is touched.
func TestMarksThatDoNotFit(t *testing.T) {
	for _, bad := range []string{
		begin + "one\n10.9.0.7 blog\n",
		end + "one\n",
		begin + "one\n" + begin + "two\n" + end + "two\n",
		begin + "one\n" + end + "two\n",
	} {
		path := write(t, others+"\n"+bad)
		if err := Put(path, "one", ""); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := Remove(path, "one"); err == nil {
			t.Errorf("%q: no error", bad)
		}
		if got := text(t, path); got != others+"\n"+bad {
			t.Errorf("it has become %q", got)
		}
	}
	if err := Put(filepath.Join(t.TempDir(), "none"), "one", ""); err == nil {
		t.Error("a file that is not there was made")
	}
}

// Emperors of several instances write at once, and none takes another's lines.
func TestSeveralAtOnce(t *testing.T) {
	path := write(t, others+"\n")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				if err := Put(path, fmt.Sprint("i", i), fmt.Sprintf("10.9.0.%d n%d\n", i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		if !Has(path, fmt.Sprint("i", i), fmt.Sprintf("10.9.0.%d n19\n", i)) {
			t.Errorf("the block of i%d is lost:\n%s", i, text(t, path))
		}
	}
}

// Whoever may read the file may lock it, and keeps nobody from changing it.
func TestLockedByAReader(t *testing.T) {
	path := write(t, others+"\n")
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := unix.Flock(int(reader.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Put(path, "one", "10.9.0.7 blog\n") }()
	select {
	case err := <-done:
		if err != nil || !Has(path, "one", "10.9.0.7 blog\n") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a reader's lock keeps the emperor waiting")
	}
}

// What somebody leaves who is killed in the middle is gone after the next change.
func TestLeftByAKill(t *testing.T) {
	path := write(t, others+"\n")
	left := filepath.Join(filepath.Dir(path), ".hosts.fiefdom")
	for _, lines := range []string{"10.9.0.7 blog\n", "10.9.0.7 blog\n"} { // a change, and none
		if err := os.WriteFile(left, []byte(strings.Repeat("half a file\n", 100)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Put(path, "one", lines); err != nil {
			t.Fatal(err)
		}
		if got := text(t, path); got != others+"\n"+Block("one", lines) {
			t.Errorf("got:\n%s", got)
		}
		if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
			t.Error(all, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(others + "\n" + Block("one", "10.9.0.7 blog\n") + "x\n" + Block("two", ""))
	f.Add(begin + "a\n" + end + "b\n")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parse("hosts", text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range parsed.parts {
			b.WriteString(p.text)
		}
		if b.String() != text {
			t.Errorf("%q has become %q", text, b.String())
		}
	})
}
