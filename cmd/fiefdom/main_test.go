package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
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
	testscript.Main(m, map[string]func(){
		"fiefdom": main,
		"agent":   agent,
		"urgent":  urgent,

		"clockshift": clockshift,
	})
}
