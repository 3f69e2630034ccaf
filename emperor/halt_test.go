package emperor

import (
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// Outputs that are halted have written all that they have read, no line is torn
// that has an end, and they can go on.
func TestHaltedOutputs(t *testing.T) {
	nettest.NoLeaks(t)
	log := &lines{}
	o := newOutput(t, log)
	e := &Emperor{vassals: map[string]*member{"blog": {output: o}, "new": {}}}
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		t.Helper()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	say("half")
	nettest.Eventually(t, 10*time.Second, "it is read", o.midline)
	say(" a line\n")
	resume := e.haltOutputs()
	if got := log.String(); got != "blog | half a line\n" {
		t.Errorf("halted: %q", got)
	}
	say("next\nno end")
	if got := log.String(); strings.Contains(got, "next") {
		t.Errorf("it reads on: %q", got)
	}
	resume()
	nettest.Eventually(t, 10*time.Second, "it reads on", func() bool { return strings.HasSuffix(log.String(), "\nblog | next\n") && o.midline() })
	e.haltOutputs()()
	if got := log.String(); !strings.HasSuffix(got, "\nblog | no end\n") {
		t.Errorf("halted without the end of a line: %q", got)
	}
	w.Close()
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
}
