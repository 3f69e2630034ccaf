package emperor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

const stays0 = "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n"

// asEmperor are hooks of the emperor's.
func asEmperor(actions ...string) []vassal.Hook {
	var hooks []vassal.Hook
	for _, a := range actions {
		name, args, _ := strings.Cut(a, ":")
		hooks = append(hooks, vassal.Hook{Phase: vassal.AsEmperor, Action: name, Args: args})
	}
	return hooks
}

// awaitFile waits until a file holds a text.
func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, path+" says "+want, func() bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), want)
	})
}

// script writes a program.
func script(t *testing.T, path, text string) string {
	t.Helper()
	write(t, path, "#!/bin/sh\n"+text)
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Hooks as-emperor know the vassal, and change nothing of the emperor but what
// they are meant to change.
func TestHooksAsEmperor(t *testing.T) {
	nettest.NoLeaks(t)
	dir := sharedDir(t)
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	r := newRealm(t, func(e *Emperor) {
		e.Config.Hooks = asEmperor("putenv:COLOUR=green", "exec:echo $UWSGI_VASSAL_CONFIG $UWSGI_VASSAL_PID $UWSGI_VASSAL_UID $UWSGI_VASSAL_GID $COLOUR $PWD; exit 0",
			"chdir:/", "exec:pwd > "+dir+"/pwd; id -u >> "+dir+"/pwd", "exec:false", "create:"+dir+"/never")
	})
	r.write(t, "blog", stays0)
	s := r.awaitState(t, "blog", Running)
	r.awaitLog(t, `msg="hook failed" vassal=blog hook=as-emperor`)
	r.awaitLog(t, fmt.Sprintf(`blog.ini %d 0 0 green %s`, s.PID, r.dir))
	awaitFile(t, dir+"/pwd", "/\n0\n")
	if _, err := os.Stat(dir + "/never"); err == nil {
		t.Error("hooks go on behind one that failed")
	}
	if now, err := os.Getwd(); now != cwd || err != nil || os.Getenv("COLOUR") != "" {
		t.Errorf("the emperor is in %s (%v), COLOUR=%q", now, err, os.Getenv("COLOUR"))
	}
	if s := r.awaitState(t, "blog", Running); s.Restarts != 0 {
		t.Errorf("a hook's failure was more than a line in the log: %+v", s)
	}
}

// Hooks that hang keep nobody waiting, and end with their vassal with all that
// they have started.
func TestHooksThatHang(t *testing.T) {
	nettest.NoLeaks(t)
	dir := sharedDir(t)
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for name, hook := range map[string]string{
		"a command": "exec:echo hangs; echo $$ > " + dir + "/pid; exec sleep 1000", "a fifo that nobody reads": "spinningfifo:" + dir + "/fifo hello",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealm(t, func(e *Emperor) { e.Config.Hooks = asEmperor(hook) })
			r.write(t, "blog", stays0)
			r.write(t, "shop", stays0)
			r.awaitState(t, "shop", Running)
			first := r.awaitState(t, "blog", Running)
			if name == "a command" {
				awaitFile(t, dir+"/pid", "\n")
			}
			if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.State != Running || s.PID == first.PID {
				t.Errorf("%+v, %v", s, err)
			}
			r.awaitLog(t, `msg="hook ended with its vassal" vassal=blog`)
			began := time.Now()
			r.end()
			if took := time.Since(began); took > vassal.HookTime/2 {
				t.Errorf("the emperor's end took %v", took)
			}
		})
	}
	b, err := os.ReadFile(dir + "/pid")
	if err != nil {
		t.Fatal(err)
	}
	// It is init's to bury, which may take a moment.
	nettest.Eventually(t, 10*time.Second, "what a hook started to be gone", func() bool {
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(b)))
		return err != nil
	})
}

// vassals-start-hook runs before the app and vassals-stop-hook after it, before
// the next start; whether they succeed does not matter.
func TestStartAndStopHooks(t *testing.T) {
	nettest.NoLeaks(t)
	dir := sharedDir(t)
	story := dir + "/story"
	r := newRealm(t, func(e *Emperor) {
		e.Config.StartHook = script(t, dir+"/start", `echo "start $# $1 $PWD" >> `+story+"; echo hello; exit 1\n")
		e.Config.StopHook = script(t, dir+"/stop", `sleep 0.3; echo "stop $# $1 $PWD" >> `+story+"; exit 1\n")
	})
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sh -c 'echo app >> "+story+"; exec sleep 1000'\nreload-mercy = 0\n")
	first := r.awaitState(t, "blog", Running)
	r.awaitOutput(t, "blog | hello\n")
	r.awaitOutput(t, "blog | vassals-start-hook "+dir+"/start: exit status 1\n")
	awaitFile(t, story, "app")
	if err := unix.Kill(first.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := r.await(t, "blog", "is back", func(s Status) bool { return s.State == Running && s.PID != first.PID })
	awaitFile(t, story, "stop 1 blog.ini "+r.dir+"\nstart 1 blog.ini "+r.dir+"\napp\n")
	if err := os.Remove(second.File); err != nil {
		t.Fatal(err)
	}
	r.awaitLog(t, "vassal gone")
	r.end() // it waits for the hook
	b, err := os.ReadFile(story)
	place := " 1 blog.ini " + r.dir + "\n"
	if want := "start" + place + "app\nstop" + place + "start" + place + "app\nstop" + place; err != nil || string(b) != want {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
}

// A hook of every start that hangs is ended when the start is.
func TestStartHookThatHangs(t *testing.T) {
	dir := sharedDir(t)
	r := newRealm(t, func(e *Emperor) {
		e.Config.StartHook = script(t, dir+"/start", "echo hangs; exec sleep 1000\n")
	})
	r.write(t, "blog", stays0)
	r.awaitOutput(t, "blog | hangs")
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
}

// In tyrant mode a start's hook has the owner's rights.
func TestStartHookOfATenant(t *testing.T) {
	const tenant = 61001
	dir := sharedDir(t)
	r := newRealm(t, func(e *Emperor) {
		e.Config.Tyrant = true
		e.Config.StartHook = script(t, dir+"/start", "id -u; id -g; grep NoNewPrivs /proc/self/status\n")
	})
	path := filepath.Join(filepath.Dir(r.dir), "blog.new")
	write(t, path, stays0)
	if err := os.Chown(path, tenant, tenant); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Running)
	r.awaitOutput(t, fmt.Sprintf("blog | %d\nblog | %d\nblog | NoNewPrivs:\t1\n", tenant, tenant))
}

// A tenant's ini has no hooks of the emperor's, whoever would run them.
func TestTenantsHooksAsEmperor(t *testing.T) {
	for _, option := range []string{"hook-as-emperor = exec:true", "exec-as-emperor = true", "mount-as-emperor = tmpfs none /mnt", "umount-as-emperor = /mnt"} {
		path := filepath.Join(t.TempDir(), "blog.ini")
		write(t, path, "[uwsgi]\npsgi = a.pl\n"+option+"\n")
		c, errs := ReadVassal("blog", path, nil)
		if errs.Failed() {
			t.Fatal(errs)
		}
		for _, h := range c.Hooks {
			t.Errorf("%s: became the hook %s", option, h)
		}
		if errs := tyrant(c, owner{1000, 1000}); !errs.Failed() || !strings.Contains(errs.Error(), "blog.ini:3: ") {
			t.Errorf("%s: %v", option, errs)
		}
	}
	c := &vassal.Config{Command: []string{"a"}, Hooks: asEmperor("exec:true")}
	if errs := c.Validate(); !errs.Failed() {
		t.Error("a vassal has a hook as-emperor")
	}
}

func TestExcerpt(t *testing.T) {
	var x excerpt
	for range 1000 {
		if n, err := fmt.Fprint(&x, "0123456789\n"); n != 11 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := x.text(); len(got) > excerptSize || !strings.HasSuffix(got, "\n0123456789") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
