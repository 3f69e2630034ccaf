package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// speaker is a vassal as uWSGI's EmperorProtocol document describes it: it finds
// its descriptor, says how it is, and does what it is told, one byte a message.
const speaker = `import os, sys
fd = int(os.environ['UWSGI_EMPEROR_FD'])
def say(n): os.write(fd, bytes([n]))
def log(*words): print(*words, flush=True)
log("I'm a vassal snake!")
say(1); say(5); say(17); say(26)
while True:
    b = os.read(fd, 1)
    if not b:
        log('lost my emperor'); sys.exit(1)
    if b == b'\x00':
        log('stopped'); sys.exit(0)
    if b == b'\x02':
        log('stopped gently'); sys.exit(0)
    if b == b'\x01':
        log('reloaded'); say(1)
        if os.path.exists('/run/t/leave'): say(22)
        if os.path.exists('/run/t/exile'): sys.exit(26)
`

func TestVassalThatSpeaksTheProtocol(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-graceful-shutdown = true\n")
	r.write("/run/t/snake.py", speaker)
	r.drop("snake", "[uwsgi]\nemperor-protocol = true\ncommand = python3 /run/t/snake.py\nbind = /run/t:ro\n")
	r.start()
	loyal := func(what string) emperor.Status {
		t.Helper()
		return r.await("snake", what, func(s emperor.Status) bool { return s.State == emperor.Running && s.Loyal })
	}
	first := loyal("is loyal")
	r.Run(t, "touch", iniPath("snake"))
	r.logged("snake | reloaded", 1)
	if s := loyal("is the same process after a touch"); s.PID != first.PID {
		t.Errorf("the touch made it a new process: %+v", s)
	}
	r.mustRun("reload", "snake")
	r.logged("snake | reloaded", 2)
	r.kill(first.PID)
	second := r.await("snake", "is back", func(s emperor.Status) bool { return s.Loyal && s.PID != first.PID })

	r.write("/run/t/leave", "")
	r.Run(t, "touch", iniPath("snake"))
	r.awaitState("snake", emperor.Stopped)
	r.logged("snake | stopped\n", 1)
	r.Run(t, "rm", "/run/t/leave")
	r.mustRun("start", "snake")
	if s := loyal("is back after its leave"); s.PID == second.PID {
		t.Errorf("%+v", s)
	}
	r.write("/run/t/exile", "")
	r.Run(t, "touch", iniPath("snake"))
	s := r.awaitState("snake", emperor.Stopped)
	if !strings.Contains(s.Error, "exile") {
		t.Errorf("%+v", s)
	}
	r.Run(t, "rm", "/run/t/exile")
	r.Run(t, "touch", iniPath("snake"))
	loyal("is back from its exile")
	r.stop(syscall.SIGTERM)
	r.logged("snake | stopped gently", 1)
}

// realUwsgi is a vassal that a real uwsgi runs, with a master and workers. Its
// page names the worker and the load that it belongs to.
const (
	realUwsgi = "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nwritable = /run/t\nsocket = /run/t/www/app.socket\nchmod-socket = 666\nmaster = true\nprocesses = 2\nheartbeat = 1\nuid = 1501\ngid = 1501\n"
	perlApp   = "my $loaded = LOADED;\nmy $app = sub { return ['200', ['Content-Type' => 'text/plain'], [\"load $loaded\\n\"]]; };\n"
)

func TestRealUwsgiSpeaksTheProtocol(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-e", "-c", "mkdir /run/t/www; chown 1501:1501 /run/t/www")
	load := func(n int) { r.write("/run/t/app.pl", strings.ReplaceAll(perlApp, "LOADED", fmt.Sprint(n))) }
	load(1)
	r.drop("app", realUwsgi)
	r.start()
	answers := func(want int) emperor.Status {
		t.Helper()
		return r.await("app", fmt.Sprintf("answers as load %d", want), func(s emperor.Status) bool {
			page, err := uwsgiGet(r.Path("/run/t/www/app.socket"), "/")
			return s.State == emperor.Running && err == nil && strings.HasSuffix(page, fmt.Sprintf("load %d\n", want))
		})
	}
	s := r.await("app", "accepts requests", func(s emperor.Status) bool { return s.State == emperor.Running && s.Accepting })
	if s.Loyal {
		t.Errorf("loyal before the first request: %+v", s)
	}
	first := answers(1)
	r.await("app", "is loyal after a request", func(s emperor.Status) bool { return s.Loyal })

	load(2)
	r.mustRun("reload", "app") // waits until it is ready
	if s := answers(2); s.PID != first.PID || s.Restarts != 0 {
		t.Errorf("it did not reload itself: %+v, the pid was %d", s, first.PID)
	}
	load(3)
	r.Run(t, "touch", iniPath("app"))
	if s := answers(3); s.PID != first.PID {
		t.Errorf("after the touch: %+v, the pid was %d", s, first.PID)
	}
	r.drop("app", realUwsgi+"touch-reload = /run/t/app.pl\numask = 027\n")
	second := r.await("app", "is a new process with its new umask", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != first.PID
	})
	answers(3)

	// The emperor's death is none of its business, nor is a reload without one. (When
	// a fresh uwsgi first looks at the file nobody knows, so it is written again.)
	r.die()
	alive := func(want int) {
		t.Helper()
		nettest.Eventually(t, patience, fmt.Sprintf("it answers as load %d without an emperor", want), func() bool {
			load(want)
			page, err := uwsgiGet(r.Path("/run/t/www/app.socket"), "/")
			return err == nil && strings.HasSuffix(page, fmt.Sprintf("load %d\n", want))
		})
	}
	alive(3)
	alive(4)

	r.start()
	third := answers(4)
	if third.PID != second.PID {
		t.Errorf("under the next emperor it has another pid than %d: %+v", second.PID, third)
	}
	r.mustRun("stop", "app")
	if log, err := os.ReadFile(r.log); err != nil || strings.Contains(string(log), "did not stop in time") {
		t.Error("it had to be killed")
	}
	r.stop(syscall.SIGTERM)
}
