package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whoever has the folder may write to the log himself, or put another file there.
// The log is rotated then, and nothing is lost of what goes through it.
func TestOthersMakeItTooLarge(t *testing.T) {
	large := bytes.Repeat([]byte("theirs\n"), MinSize/5)
	for name, do := range map[string]func(path string) error{
		"written to": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(large)
			return err
		},
		"replaced": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, large, 0o640)
		},
	} {
		for _, looks := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				f := in(t, dir, Rules{MaxSize: MinSize})
				defer f.Close()
				write(t, f, "before\n")
				if !looks { // it is noticed when the file is full
					write(t, f, strings.Repeat("before\n", (MinSize-LongLine)/7-1))
					write(t, f, "before\n")
				}
				if err := do(filepath.Join(dir, "log")); err != nil {
					t.Fatal(err)
				}
				f.looked = time.Now()
				if looks {
					f.looked = time.Time{}
				}
				write(t, f, "after\n")
				if got := read(t, filepath.Join(dir, "log")); got != "after\n" {
					t.Errorf("the log has %d bytes, %.30q", len(got), got)
				}
			})
		}
	}
}
