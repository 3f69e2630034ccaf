package main

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// having is an app that appends to a file which descriptors it has, and where it is.
const having = `import os, sys, time
def open_is(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
has = [str(fd) for fd in range(4096) if open_is(fd)]
with open(sys.argv[1], 'a') as f: print(*has, os.getcwd(), file=f)
time.sleep(1000)
`

// Of a thousand starts, many of them at a time, no app has a descriptor of anybody
// else's, or begins elsewhere. // T14
func TestSoakManyStartsLeaveNothingOpen(t *testing.T) {
	t.Parallel()
	const vassals = 10
	rounds := scaled(5, 100)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "mkdir", "-m", "1777", "/run/t/told")
	r.write("/run/t/told/app.py", having)
	name := func(i int) string { return fmt.Sprintf("vassal%d", i) }
	for i := range vassals {
		r.drop(name(i), "[uwsgi]\nchdir = /run/t/told\nwritable = /run/t/told\nreload-mercy = 0\ncommand = /usr/bin/python3 app.py %n\n")
	}
	r.start()
	for round := range rounds {
		for i := range vassals {
			nettest.Eventually(t, patience, name(i)+" has told what it has", func() bool {
				return strings.Count(r.read("/run/t/told/"+name(i)), "\n") > round
			})
		}
		if round == rounds-1 {
			break
		}
		var all sync.WaitGroup
		for i := range vassals {
			all.Go(func() {
				if _, err := r.api.Do(t.Context(), name(i), "restart"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	for i := range vassals {
		if told := r.read("/run/t/told/" + name(i)); told != strings.Repeat("0 1 2 /run/t/told\n", rounds) {
			t.Errorf("%s, of %d starts:\n%.2000s", name(i), rounds, told)
		}
	}
	r.stop(syscall.SIGTERM)
}

// A file that the emperor was started with open is nobody's: neither an app's, nor
// that of anything of ours that stays beside it. // T14
func TestWhatTheEmperorWasGivenIsNobodys(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.program = "/run/t/with-open"
	r.writeProgram(r.program, "#!/bin/sh\nexec 9</run/t/given\nexec LASTING \"$@\"\n")
	r.write("/run/t/given", "secret")
	r.drop("blog", agentIni+"exec-as-user = sh -c '! test -e /proc/self/fd/9'\n")
	r.drop("free", agentIni+"confine = compat\nattach-daemon = sleep 1000\n")
	r.start()
	r.reach("blog")
	r.reach("free")
	// The search has it open itself, and finds that. It complains of processes that end meanwhile.
	out, _ := r.Try(t, "sh", "-c", "echo $$; exec 8</run/t/given; exec find -L /proc/[0-9]*/fd -maxdepth 1 -samefile /run/t/given 2>/dev/null")
	self, open, _ := strings.Cut(out, "\n")
	if !strings.Contains(open, "/proc/"+self+"/fd/8\n") {
		t.Errorf("the search finds nothing, not even that it has it open itself: %q", out)
	}
	for path := range strings.Lines(open) {
		if !strings.HasPrefix(path, "/proc/"+self+"/") {
			t.Errorf("it is open as %s", path)
		}
	}
	r.stop(syscall.SIGTERM)
}
