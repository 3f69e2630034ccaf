package emperor

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// On a small disk events leave room for what else the emperor writes there.
func TestJournalOnSmallDisk(t *testing.T) {
	nettest.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("journal", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	j := (&Instance{State: dir}).OpenJournal(slog.New(slog.DiscardHandler))
	const count = 500
	for range count {
		j.add(Event{Kind: "info", Message: strings.Repeat("x", 1000)})
	}
	j.Close()
	if _, lost := j.Counts(); lost > 0 {
		t.Errorf("%d events are lost", lost)
	}
	if all := onDisk(t, j); len(all) == 0 || all[len(all)-1].ID != count {
		t.Errorf("%d events are on disk, not the last", len(all))
	}
	var used int64
	for _, path := range []string{j.file.path, j.file.old()} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		used += st.Size()
	}
	if used > 64<<10 {
		t.Errorf("%d bytes of 256 KiB are the journal's", used)
	}
}
