package nettest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"fiefdom/internal/netns"
)

// waitDelay is how long a command's output is waited for after its end: a child
// in the background may hold it open for ever.
const waitDelay = 5 * time.Second

// NS is a network namespace that lives as long as its test.
type NS struct {
	Handle vnetns.NsHandle
}

// NewNS makes a network namespace with its loopback device up and forwarding
// off (a fresh namespace inherits the machine's setting). It calls [Root].
func NewNS(t testing.TB) *NS {
	t.Helper()
	Root(t)
	handle, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	ns := &NS{Handle: handle}
	ns.setUp(t)
	return ns
}

func (ns *NS) setUp(t testing.TB) {
	t.Helper()
	ns.Do(t, func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatalf("bring up lo: %v", err)
		}
	})
}

// Do runs fn on a thread in the namespace while the caller waits. Fn may call
// t.Fatal. Sockets opened in it stay in the namespace; goroutines started in it
// run outside.
func (ns *NS) Do(t testing.TB, fn func()) {
	t.Helper()
	if err := netns.Do(ns.Handle, func() error { fn(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// Run runs a command in the namespace and returns what it wrote to both its
// outputs. The test fails, with that text, if the command does.
func (ns *NS) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out []byte
	var err error
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.WaitDelay = waitDelay
	ns.Do(t, func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// Start starts cmd in the namespace. At the end of the test it is killed and
// waited for, unless the test has done so.
func (ns *NS) Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	ns.Do(t, func() {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	endWith(t, cmd)
}

// endWith kills and reaps a started command at the end of the test.
func endWith(t testing.TB, cmd *exec.Cmd) {
	t.Cleanup(func() {
		if cmd.ProcessState != nil {
			return
		}
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("kill %v: %v", cmd, err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
			t.Errorf("wait for %v: %v", cmd, err)
		}
	})
}
