package nettest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// As root a skipped test is a failure, unless the kernel is to blame.
func TestSummaryOfSkips(t *testing.T) {
	const output = `=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
    b_test.go:3: needs b
=== CONT  TestA
    a_test.go:4: %s
=== NAME  TestB
    b_test.go:5: %s
--- SKIP: TestB (0.00s)
--- SKIP: TestA (0.00s)
PASS
ok  	fiefdom/a	0.01s
`
	for _, tc := range []struct {
		a, b string
		fine bool
	}{
		{notHere + "no disk", notHere + "no tree", true},
		{"needs a", notHere + "no tree", false},
		{notHere + "no disk", "needs b", false},
	} {
		awk := exec.Command("awk", "-v", "strict=1", "-f", "../../.ci/summary.awk")
		awk.Stdin = strings.NewReader(fmt.Sprintf(output, tc.a, tc.b))
		out, err := awk.CombinedOutput()
		if (err == nil) != tc.fine || !strings.Contains(string(out), tc.a) || !strings.Contains(string(out), tc.b) {
			t.Errorf("%q and %q: %v\n%s", tc.a, tc.b, err, out)
		}
	}
}
