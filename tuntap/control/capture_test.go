package control

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

// A capture's socket gets through to the confined router, and nothing of it stays.
func TestKeeperCaptures(t *testing.T) {
	r := newRig(t)
	r.run(t)
	before := nettest.OpenFiles(t, os.Getpid())
	if conn, err := r.Capture(t.Context(), tuntap.CaptureQuery{Vassal: "nobody"}); err == nil {
		conn.Close()
		t.Error("of nobody's packets")
	}
	conn, err := r.Capture(t.Context(), tuntap.CaptureQuery{Vassal: "blog"})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := tuntap.ReadCapture(conn, new(tuntap.Captured)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v; want nothing yet", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := r.stopRouter(); err != nil {
		t.Fatal(err)
	}
	if err := tuntap.ReadCapture(conn, new(tuntap.Captured)); !errors.Is(err, io.EOF) {
		t.Errorf("%v after the router's end", err)
	}
	conn.Close()
	nettest.Eventually(t, 20*time.Second, "as many files as before", func() bool { return nettest.OpenFiles(t, os.Getpid()) <= before })
}

// stopRouter kills the router; the keeper starts another.
func (r *rig) stopRouter() error {
	p, err := os.FindProcess(r.PID())
	if err != nil {
		return err
	}
	return errors.Join(p.Kill(), p.Release())
}
