package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// TestMain makes of the test binary five programs, told apart by argv[0]: the
// tests, fiefdom itself (every process of it, as each starts the next with its
// own argv[0]), the app of the tests' vassals, one that counts signals, and one
// that moves what the vault knows in time.
func TestMain(m *testing.M) {
	// Under the race detector every process would wait a second before it exits.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	testscript.Main(programs{m}, map[string]func(){
		"fiefdom": func() {
			if file := os.Getenv(plainProgram); file != "" {
				vassal.Program = file
			}
			main()
		},
		"agent":  agent,
		"urgent": urgent,

		"clockshift": clockshift,
	})
}

// plainProgram names the program without the race detector, for an emperor that has it.
const plainProgram = "FIEFDOM_TEST_PROGRAM"

// lasting is the program whose emperors, routers, responders and vaults the tests
// look at: that with the race detector, if they have it themselves.
var lasting string

// programs are the tests, and what they find in their PATH. A start of a program
// with the race detector costs as much as ten without it, and the tests start
// thousands that live for milliseconds in a single thread: commands, expanders, first stages of
// apps. These are then of another build of the very same test binary. (The tests of
// emperor and vassal have all of their processes with the detector.)
type programs struct{ *testing.M }

func (p programs) Run() int {
	var err error
	if lasting, err = exec.LookPath("fiefdom"); err != nil {
		return failed(err)
	}
	if !nettest.Raced() || testing.CoverMode() != "" {
		return p.M.Run()
	}
	tmp, err := os.MkdirTemp("", "fiefdom-programs")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(tmp)
	// Every uid reaches them.
	dir := filepath.Join(tmp, "bin")
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Mkdir(dir, 0o755)); err != nil {
		return failed(err)
	}
	file := filepath.Join(dir, "fiefdom")
	build := nettest.GoTool(context.Background(), "test", "-c", "-race=false", "-ldflags=-s -w", "-o", file, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return failed(fmt.Errorf("build the programs without the race detector: %w\n%s", err, out))
	}
	for _, other := range []string{"agent", "urgent", "clockshift"} {
		if err := os.Link(file, filepath.Join(dir, other)); err != nil {
			return failed(err)
		}
	}
	os.Setenv(plainProgram, file)
	os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return p.M.Run()
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
