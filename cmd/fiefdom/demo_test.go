package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"fiefdom/internal/nettest"
)

// The demo runs in a world, which has to be afterwards as it was before.
func TestDemo(t *testing.T) {
	w := nettest.NewWorld(t)
	before := w.Snapshot(t)
	out := w.Run(t, ownBinary(t), "demo")
	t.Logf("\n%s", out)
	if n := strings.Count(out, "✓ "); n != len(demoSteps) || strings.Contains(out, "✗") {
		t.Errorf("%d of %d steps held", n, len(demoSteps))
	}
	listed := false
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "✓ ") {
			listed = strings.HasPrefix(line, "✓ fiefdom ps")
		} else if listed {
			continue // the table of vassals with ports is wider, as everywhere
		}
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
	if diff := nettest.Diff(before, w.Snapshot(t)); diff != "" {
		t.Errorf("the demo changed its machine:\n%s", diff)
	}
}

// However the demo is ended, nothing of it goes on.
func TestDemoEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		by   syscall.Signal
		code int
	}{
		{"by Ctrl-C", syscall.SIGINT, exitFailed},
		{"by TERM", syscall.SIGTERM, exitFailed},
		{"by KILL", syscall.SIGKILL, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := nettest.NewWorld(t)
			before := w.Snapshot(t)
			cmd := exec.Command(ownBinary(t), "demo")
			out, theirs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = theirs, theirs
			w.Start(t, cmd)
			theirs.Close()
			lines := bufio.NewScanner(out)
			for told := 0; told < 2; {
				if !lines.Scan() {
					t.Fatalf("the demo ended early: %v", lines.Err())
				}
				if strings.HasPrefix(lines.Text(), "✓") {
					told++ // both apps run now
				}
			}
			if err := cmd.Process.Signal(c.by); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), "✗") {
					t.Errorf("a step failed for being interrupted: %s", lines.Text())
				}
			}
			nettest.Eventually(t, patience, "nothing is left", func() bool {
				left := strings.Split(nettest.Diff(before, w.Snapshot(t)), "\n")
				return !slices.ContainsFunc(left, func(line string) bool {
					// Nobody is there to remove an empty cgroup after a kill.
					return line != "" && (c.by != syscall.SIGKILL || !strings.HasPrefix(line, "+ cgroup "))
				})
			})
		})
	}
}

func TestDemoSaysWhatIsMissing(t *testing.T) {
	w := nettest.NewWorld(t)
	out, err := w.Try(t, "unshare", "-m", "sh", "-ec", `mount -t tmpfs none /dev/net; exec "$0" demo`, ownBinary(t))
	if err == nil || !strings.Contains(out, "tun: ") || !strings.Contains(out, "fix: modprobe tun") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestDemoSaysThatItNeedsRoot(t *testing.T) {
	w := nettest.NewWorld(t)
	out, err := w.Try(t, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", ownBinary(t), "demo")
	if err == nil || !strings.Contains(out, "fix: run it as root") || strings.Count(out, "fix: ") != 1 {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The half of the demo that furnishes a machine must not do so to ours.
func TestDemoInsideRefusesAMachine(t *testing.T) {
	w := nettest.NewWorld(t)
	before := w.Snapshot(t)
	out, err := w.Try(t, ownBinary(t), "demo", demoInside)
	if err == nil || !strings.Contains(out, "part of fiefdom demo") {
		t.Errorf("%v:\n%s", err, out)
	}
	if diff := nettest.Diff(before, w.Snapshot(t)); diff != "" {
		t.Errorf("it changed the machine:\n%s", diff)
	}
}

func TestStoryStopsAtWhatDoesNotHold(t *testing.T) {
	holds := func(evidence string) func(*story, context.Context) (string, error) {
		return func(*story, context.Context) (string, error) { return evidence, nil }
	}
	var out strings.Builder
	err := (&story{out: &out}).tell(t.Context(), []step{
		{"the sun rises", holds("in the east\nevery day")},
		{"pigs fly", func(*story, context.Context) (string, error) { return "", errors.New("they do not") }},
		{"never told", holds("")},
	})
	if err == nil {
		t.Error("the story held")
	}
	var told []string
	for line := range strings.Lines(strings.TrimPrefix(out.String(), demoTitle)) {
		told = append(told, strings.Join(strings.Fields(line), " "))
	}
	want := []string{"✓ the sun rises 0 ms", "in the east", "every day", "✗ pigs fly 0 ms", "they do not"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestDifferences(t *testing.T) {
	before := []string{"device eth0", "device lo", "file /run"}
	after := []string{"device fief0", "device lo", "file /run"}
	want := []string{"gone: device eth0", "left: device fief0"}
	if got := differences(before, after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := differences(before, before); len(got) > 0 {
		t.Errorf("equal lists differ: %q", got)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	if err := until(t.Context(), time.Minute, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%v after %d tries", err, n)
	}
	no := errors.New("no")
	if err := until(t.Context(), time.Millisecond, func() error { return no }); !errors.Is(err, no) {
		t.Errorf("got %v, want %v", err, no)
	}
}
