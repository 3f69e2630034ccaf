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

// logged waits until the emperor's log has a text so many times.
func (r *realm) logged(text string, times int) {
	r.t.Helper()
	nettest.Eventually(r.t, patience, fmt.Sprintf("%d times %q", times, text), func() bool {
		log, err := os.ReadFile(r.log)
		return err == nil && strings.Count(string(log), text) >= times
	})
}

// awaitPage waits until the uwsgi of a vassal answers a text on its socket.
func (r *realm) awaitPage(vassal, want string) emperor.Status {
	r.t.Helper()
	return r.await(vassal, "answers "+want, func(s emperor.Status) bool {
		page, err := uwsgiGet(r.Path("/run/t/www/app.socket"), "/")
		return s.State == emperor.Running && err == nil && strings.HasSuffix(page, want+"\n")
	})
}

// oneWorker is realUwsgi with one worker, so that a page says that it is there
// with all that it has: a worker that is told to end while it starts may not
// hear it, and the uwsgi then waits a minute for it before it loads again.
var oneWorker = strings.Replace(realUwsgi, "processes = 2", "processes = 1", 1)

// ownersWorker is that of an owner, to whom the folder of all inis is not given: his
// apps are in his own.
var ownersWorker = strings.NewReplacer("writable = /run/t\n", "writable = /run/t/www\n", "/run/t/app.pl", "/run/t/www/app.pl").Replace(oneWorker)

// writeApps writes two apps that a uwsgi can load; one has a name that the
// dialect would read otherwise.
func (r *realm) writeApps() {
	r.t.Helper()
	r.Run(r.t, "sh", "-e", "-c", "mkdir /run/t/www; chown 1501:1501 /run/t/www")
	r.write("/run/t/app.pl", strings.ReplaceAll(perlApp, "LOADED", "1"))
	r.write("/run/t/a%d$(b).pl", strings.ReplaceAll(perlApp, "LOADED", "2"))
	r.Run(r.t, "sh", "-c", "cp -p /run/t/*.pl /run/t/www/")
}

// A uwsgi that the emperor tells to reload takes the new options of its ini, as
// long as they are its own. What is the jail's takes a new process, and so does
// everything where the uwsgi cannot see its settings.
func TestUwsgiTakesNewOptionsByAReload(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.writeApps()
	r.drop("app", oneWorker)
	r.start()
	first := r.awaitPage("app", "load 1")
	r.drop("app", strings.ReplaceAll(oneWorker, "/run/t/app.pl", "/run/t/a%%d$(b).pl"))
	if s := r.awaitPage("app", "load 2"); s.PID != first.PID || s.Restarts != 0 {
		t.Errorf("it did not reload itself: %+v, the pid was %d", s, first.PID)
	}
	r.drop("app", oneWorker)
	if s := r.awaitPage("app", "load 1"); s.PID != first.PID {
		t.Errorf("it did not reload itself again: %+v, the pid was %d", s, first.PID)
	}

	r.drop("app", oneWorker+"umask = 027\n")
	second := r.await("app", "is a new process with its new umask", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != first.PID
	})
	r.awaitPage("app", "load 1")
	r.drop("app", oneWorker+"umask = 027\nconfine = compat\nexec-as-root = mount -t tmpfs none /proc\n")
	third := r.await("app", "is a new process without a real /proc", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != second.PID
	})
	r.awaitPage("app", "load 1")
	r.drop("app", strings.ReplaceAll(oneWorker, "/run/t/app.pl", "/run/t/a%%d$(b).pl")+"umask = 027\nconfine = compat\nexec-as-root = mount -t tmpfs none /proc\n")
	if s := r.awaitPage("app", "load 2"); s.PID == third.PID {
		t.Errorf("it cannot see its settings, and took them: %+v", s)
	}
	r.stop(syscall.SIGTERM)
}

// A tenant's uwsgi in a pid namespace, behind its reaper, sees its settings too
// and cannot change them.
func TestTenantsUwsgiTakesNewOptions(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nemperor-use-clone = pid,fs\n")
	r.writeApps()
	r.writeAs(iniPath("app"), ownersWorker, 1501, 1501)
	r.start()
	first := r.awaitPage("app", "load 1")
	r.writeAs(iniPath("app"), strings.ReplaceAll(ownersWorker, "/app.pl", "/a%%d$(b).pl"), 1501, 1501)
	if s := r.awaitPage("app", "load 2"); s.PID != first.PID || s.Restarts != 0 {
		t.Errorf("it did not reload itself: %+v, the pid was %d", s, first.PID)
	}
	fds := fmt.Sprintf("/proc/%d/fd/", first.PID)
	tenant := func(command string) (string, error) {
		return r.Try(t, "setpriv", "--reuid=1501", "--regid=1501", "--clear-groups", "sh", "-c", command)
	}
	if out, err := tenant("cat " + fds + "5"); err != nil || !strings.Contains(out, "psgi = /run/t/www/a%%d$(b).pl\n") {
		t.Errorf("the tenant reads its settings: %q, %v", out, err)
	}
	if out, err := tenant("echo mine >" + fds + "5"); err == nil || !strings.Contains(out, "ermission denied") {
		t.Errorf("the tenant writes its settings: %q, %v", out, err)
	}
	r.stop(syscall.SIGTERM)
}

// reader is a vassal that takes its options by uWSGI's config pipe.
const reader = `import os, struct, sys
fd, pipe = int(os.environ['UWSGI_EMPEROR_FD']), int(os.environ['UWSGI_EMPEROR_FD_CONFIG'])
def say(n): os.write(fd, bytes([n]))
def whole(n):
    b = b''
    while len(b) < n:
        more = os.read(pipe, n - len(b))
        if not more: sys.exit('no more options')
        b += more
    return b
def load():
    kind, size, rest = struct.unpack('<BHB', whole(4))
    print(kind, rest, size, whole(size)[8:][-32:].decode().replace('\n', ','), flush=True)
load(); say(1); say(2); load(); print('asked', flush=True)
while True:
    b = os.read(fd, 1)
    if b == b'\x01':
        if os.path.exists('/run/t/deaf'): print('deaf', flush=True); continue
        load(); say(1)
    else: sys.exit(0)
`

func TestConfigPipe(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/reader.py", reader)
	command := "[uwsgi]\nemperor-protocol = true\nreload-mercy = 1\ncommand = python3 /run/t/reader.py\nbind = /run/t:ro\n"
	r.drop("snake", command+"processes = 4\nmy-colour = green\n")
	r.start()
	r.logged("snake | 115 0 40 processes = 4,my-colour = green,", 2)
	r.logged("snake | asked", 1)
	first := r.awaitState("snake", emperor.Running)
	r.Run(t, "touch", iniPath("snake"))
	r.logged("snake | 115 0 40 processes = 4,my-colour = green,", 3)
	// As much as a frame holds, then more.
	filler := strings.Repeat("x", 65535-len("[uwsgi]\na = \nmy-colour = red\n"))
	r.drop("snake", command+"a = "+filler+"\nmy-colour = red\n")
	r.logged("snake | 115 0 65535 xxxxxxxxxxxxxxx,my-colour = red,", 1)
	r.drop("snake", command+"a = "+filler+"x\nmy-colour = red\n")
	s := r.await("snake", "has too many options", func(s emperor.Status) bool { return s.Error != "" })
	if s.State != emperor.Running || !strings.Contains(s.Error, "65536 bytes") || s.PID != first.PID {
		t.Errorf("%+v, the pid was %d", s, first.PID)
	}

	// One that is told to reload and does not is started anew when its mercy is over.
	r.write("/run/t/deaf", "")
	r.drop("snake", command+"my-colour = blue\n")
	r.logged("snake | deaf", 1)
	second := r.await("snake", "is started anew", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != first.PID
	})
	r.logged("is not back from its reload", 1)
	r.logged("snake | 115 0 25 my-colour = blue,", 1)
	// It has not read what came with the last touch: new options it gets by a new start alone.
	r.logged("snake | asked", 2)
	r.Run(t, "touch", iniPath("snake"))
	r.logged("snake | deaf", 2)
	r.drop("snake", command+"my-colour = brown\n")
	r.await("snake", "is started anew", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != second.PID })
	r.logged("snake | 115 0 26 my-colour = brown,", 1)
	r.stop(syscall.SIGTERM)
}

// A uwsgi of the user's own command line takes its options by the pipe too.
func TestUwsgiTakesTheConfigPipe(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.writeApps()
	ini := oneWorker + "emperor-protocol = true\ncommand = uwsgi --ini emperor://app\n"
	r.drop("app", ini)
	r.start()
	first := r.awaitPage("app", "load 1")
	for i := range 3 {
		want := fmt.Sprint("load ", 2-i%2)
		if i%2 == 0 {
			r.drop("app", strings.ReplaceAll(ini, "/run/t/app.pl", "/run/t/a%%d$(b).pl"))
		} else {
			r.drop("app", ini)
		}
		if s := r.awaitPage("app", want); s.PID != first.PID {
			t.Errorf("%s: it did not reload itself: %+v, the pid was %d", want, s, first.PID)
		}
		r.mustRun("reload", "app")
		r.awaitPage("app", want)
	}
	r.stop(syscall.SIGTERM)
}
