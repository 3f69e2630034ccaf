package nettest

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"fiefdom/internal/netns"
)

// RootEnv is the environment variable that turns a missing ability or program from
// a skipped test into a failed one, when it is "1".
const RootEnv = "FIEFDOM_TEST_ROOT"

// able says once per test binary what stands in the way of root tests. It tries
// the abilities themselves: uid 0 in a container may have none of them, and an
// ordinary user in a user namespace may have them all.
var able = sync.OnceValue(func() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the tun driver: %w", err)
	}
	return tun.Close()
})

// Root skips the test, with the reason, where it cannot make network namespaces
// and tun devices. With FIEFDOM_TEST_ROOT=1 in the environment it fails the test
// instead, so that a green run cannot mean that nothing ran.
func Root(t testing.TB) {
	t.Helper()
	if err := able(); err != nil {
		Lacks(t, "needs root: %v", err)
	}
}
