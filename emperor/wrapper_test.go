package emperor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func TestWrapperPrograms(t *testing.T) {
	for text, want := range map[string][]string{
		"":                       nil,
		"emperor-wrapper = /w\n": {"/w"},
		"emperor-wrapper-override = /a\nemperor-wrapper-override = /b\nemperor-wrapper-fallback = /c\n": {"/a", "/b", "uwsgi", "/c"},
		"emperor-wrapper-fallback = /c\nemperor-wrapper = /w\nemperor-wrapper-override = /a\n":          {"/a", "/w", "/c"},
	} {
		if got := goodEmperor(t, "emperor = /v\n"+text).Wrappers.programs("uwsgi"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// The first program that can be started gets the arguments of the uwsgi; a
// command is nobody's.
func TestWrappersStart(t *testing.T) {
	r := newRealm(t, func(e *Emperor) {
		dir := filepath.Dir(e.Config.Monitors[0].Dir)
		wrapper := filepath.Join(dir, "wrapper")
		write(t, wrapper, "#!/bin/sh\necho wrapped \"$@\"; exec sleep 1000\n")
		if err := os.Chmod(wrapper, 0o755); err != nil {
			t.Fatal(err)
		}
		e.Config.Wrappers = Wrappers{Override: []string{"/no/such/program"}, Wrapper: wrapper, Fallback: []string{"/bin/false"}}
	})
	r.write(t, "site", "[uwsgi]\nhttp-socket = :8000\nmodule = site\n")
	r.write(t, "plain", stays)
	site := r.awaitState(t, "site", Running)
	r.awaitState(t, "plain", Running)
	want := "site | wrapped --safe-fd 5 --ini /proc/self/fd/5"
	nettest.Eventually(t, 20*time.Second, "the wrapper tells its arguments", func() bool { return strings.Contains(r.output.String(), want) })
	if strings.Contains(r.output.String(), "plain | wrapped") {
		t.Error("a command was wrapped")
	}
	r.write(t, "site", fmt.Sprintf("[uwsgi]\nhttp-socket = :8001\nmodule = %d\n", site.PID))
	r.await(t, "site", "is started anew", func(s Status) bool { return s.State == Running && s.PID != site.PID })
}
