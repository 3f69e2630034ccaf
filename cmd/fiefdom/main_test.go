package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes of the test binary three programs, told apart by argv[0]: the
// tests, fiefdom itself (every process of it, as each starts the next with its
// own argv[0]), and the app of the tests' vassals.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fiefdom": main,
		"agent":   agent,
	})
}
