package vassal

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Nobody is told, and nobody is waited for, unless the action spins.
func TestFifoWithoutAReader(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := unix.Mkfifo("FIFO", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := hook(t, "writefifo", "FIFO on"); err != nil {
		t.Errorf("without a reader: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"FIFO", "NOT-YET"} {
		if err := RunHooks(ctx, []Hook{{Phase: AsRoot, Action: "spinningfifo", Args: name + " on"}}, new(bytes.Buffer)); err == nil {
			t.Errorf("%s: the spinning one was done", name)
		}
	}
}

func TestSpinningFifoFindsItsReader(t *testing.T) {
	t.Chdir(t.TempDir())
	done := make(chan error, 1)
	go func() {
		_, err := hook(t, "spinningfifo", "FIFO on")
		done <- err
	}()
	if err := unix.Mkfifo("FIFO", 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile("FIFO", os.O_RDONLY, 0) // waits for the writer
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "on" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMountWords(t *testing.T) {
	for name, tc := range map[string]struct {
		words []string
		flags uintptr
		data  string
	}{
		"none":                {nil, 0, ""},
		"defaults":            {[]string{"defaults"}, 0, ""},
		"flags":               {[]string{"bind,ro"}, unix.MS_BIND | unix.MS_RDONLY, ""},
		"flags, then data":    {[]string{"nodev", "hidepid=2"}, unix.MS_NODEV, "hidepid=2"},
		"data among flags":    {[]string{"nodev,hidepid=2,gid=4"}, unix.MS_NODEV, "hidepid=2,gid=4"},
		"data here and there": {[]string{"nosuid,size=1m", "mode=700"}, unix.MS_NOSUID, "size=1m,mode=700"},
	} {
		t.Run(name, func(t *testing.T) {
			flags, data, err := mountWords(tc.words)
			if err != nil || flags != tc.flags || data != tc.data {
				t.Errorf("got %#x %q, %v", flags, data, err)
			}
		})
	}
}
