package ini

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestGeneratedAgainstUWSGI compares on scenarios of a generator. FIEFDOM_SEED
// repeats those of a run that failed.
func TestGeneratedAgainstUWSGI(t *testing.T) {
	u := findUWSGI(t).withBlobs(t)
	cases := 300
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		cases = 100_000
	}
	if n, err := strconv.Atoi(os.Getenv("FIEFDOM_CASES")); err == nil {
		cases = n
	}
	seed := seedOf(t)
	const batch = 100
	for first := 0; first < cases; first += batch {
		t.Run(strconv.Itoa(first), func(t *testing.T) {
			t.Parallel()
			scenarios := make([]scenario, min(batch, cases-first))
			for i := range scenarios {
				scenarios[i] = newDice(seed + uint64(first+i)).scenario()
			}
			for i, difference := range u.differences(t, scenarios) {
				if difference != "" {
					u.report(t, scenarios[i])
					return // one is enough to look at
				}
			}
		})
	}
}

// seedOf is where a generator begins: anywhere, or where FIEFDOM_SEED says.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("FIEFDOM_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("FIEFDOM_SEED=%d", seed)
	return seed
}

// report shrinks a scenario with a difference and shows it.
func (u realUWSGI) report(t *testing.T, s scenario) {
	t.Helper()
	s = shrink(s, func(s scenario) bool { return u.differences(t, []scenario{s})[0] != "" })
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name] != "" {
			fmt.Fprintf(&text, "%s: %q\n", name, s[name])
		}
	}
	t.Errorf("%s%s", text.String(), u.differences(t, []scenario{s})[0])
}

// withBlobs is a uwsgi with what data:// reads: "blob one" and "blob zero".
func (u realUWSGI) withBlobs(t *testing.T) realUWSGI {
	t.Helper()
	program, err := os.ReadFile(u.binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range []string{"blob one", "blob %zero\n"} {
		program = append(program, blob...)
		program = binary.NativeEndian.AppendUint64(program, uint64(len(blob)))
	}
	u.binary = filepath.Join(t.TempDir(), "uwsgi")
	if err := os.WriteFile(u.binary, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return u
}

// differences compares scenarios, with one shell for all of them.
func (u realUWSGI) differences(t *testing.T, scenarios []scenario) []string {
	t.Helper()
	dir := t.TempDir()
	place := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	for i, s := range scenarios {
		if err := os.Mkdir(place(i), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range s {
			if err := os.WriteFile(filepath.Join(place(i), name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", caseLimits+`for d in *; do (cd "$d" && exec "$0" --show-config --ini main.ini <stdin >.out 2>&1); done; exit 0`, u.binary)
	cmd.Dir, cmd.Env = dir, scenarioEnv
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run uwsgi: %v\n%s", err, out)
	}
	differences := make([]string, len(scenarios))
	for i := range scenarios {
		out, err := os.ReadFile(filepath.Join(place(i), ".out"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(place(i), ".out")); err != nil { // for-glob would find it
			t.Fatal(err)
		}
		want, accepted := configOf(string(out), "main.ini")
		o := u.loadOptions(place(i), scenarioEnv)
		stdin, err := os.Open(filepath.Join(place(i), "stdin"))
		if err != nil {
			t.Fatal(err)
		}
		o.Stdin = stdin
		o.FD = func(int) ([]byte, error) { return io.ReadAll(stdin) }
		got, ok := u.load("main.ini", o)
		stdin.Close()
		differences[i] = differ(got, ok, want, accepted)
	}
	return differences
}
