package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// hookedEmperor is an ini that both emperors can run.
const hookedEmperor = `[uwsgi]
master = true
emperor = /run/t/vassals
emperor-freq = 1
vassals-start-hook = /run/t/start-hook
vassals-stop-hook = /run/t/stop-hook
hook-emperor-start = writen:/run/t/told/began yes
hook-as-emperor = writen:/run/t/told/hook yes
mount-as-emperor = tmpfs none /run/t/mnt
exec-as-emperor = (env | grep UWSGI_VASSAL_ | grep -v PID | sort; pwd; touch /run/t/mnt/mounted) > /run/t/told/exec
`

// told are the files that the hooks write, with what is in them.
func told(t *testing.T, w *nettest.World) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(w.Path("/run/t/told"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(w.Path("/run/t/told/" + e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(b)
	}
	return found
}

// What the hooks around a vassal see is what they see under a real uWSGI's
// emperor: the same files are written by both.
func TestHooksAroundAVassal(t *testing.T) {
	t.Parallel()
	all := []string{"began", "hook", "exec", "start", "stop"}
	lay := func() *realm {
		r := layRealm(t, nettest.NewWorld(t), "emperor", hookedEmperor)
		r.Run(t, "mkdir", "-p", "/run/t/told", "/run/t/mnt")
		r.write("/run/t/snake.py", speaker)
		for _, name := range []string{"start", "stop"} {
			r.write("/run/t/"+name+"-hook", "#!/bin/sh\necho $# $1 $(pwd) $(id -u) > /run/t/told/"+name+"\n")
		}
		r.Run(t, "chmod", "755", "/run/t/start-hook", "/run/t/stop-hook")
		r.drop("snake", "[uwsgi]\nemperor-protocol = true\nunprivileged-binary-patch-arg = python3 /run/t/snake.py\n")
		return r
	}
	live := func(r *realm) map[string]string {
		t.Helper()
		wrote := func(want ...string) {
			t.Helper()
			nettest.Eventually(t, patience, "hooks write "+strings.Join(want, " "), func() bool {
				found := told(t, r.World)
				for _, name := range want {
					if found[name] == "" {
						return false
					}
				}
				return true
			})
		}
		wrote(all[:4]...)
		r.logged("I'm a vassal snake!", 1)
		r.remove("snake")
		wrote(all...)
		return told(t, r.World)
	}
	theirs := lay()
	log, err := os.Create(theirs.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("uwsgi-core", "--ini", "/run/t/emperor.ini")
	cmd.Stdout, cmd.Stderr = log, log
	theirs.Start(t, cmd)
	want := live(theirs)

	ours := lay()
	ours.start()
	got := live(ours)
	if len(got) != len(all) || len(want) != len(all) {
		t.Errorf("ours wrote %q, uWSGI's %q", got, want)
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: ours has %q, uWSGI's %q", name, got[name], text)
		}
	}
	if out, err := ours.Try(t, "ls", "/run/t/mnt"); err != nil || out != "mounted\n" {
		t.Errorf("mount-as-emperor: %q, %v", out, err)
	}
	ours.Run(t, "umount", "/run/t/mnt")
	ours.stop(syscall.SIGTERM)
}

// A hook that hangs is ended with its vassal, and so is what it has left behind.
func TestHookThatHangs(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\n"+
		"exec-as-emperor = setsid sleep 1001 & sleep 1002\nvassals-stop-hook = false\n")
	r.drop("blog", "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n")
	r.start()
	first := r.awaitState("blog", emperor.Running)
	for _, sleeper := range []string{"1001", "1002"} {
		nettest.Eventually(t, patience, "sleep "+sleeper, func() bool { return strings.Contains(r.Snapshot(t), "sleep "+sleeper) })
	}
	r.mustRun("stop", "blog")
	r.logged("hook ended with its vassal", 1)
	r.logged("hook failed", 1)
	nettest.Eventually(t, patience, "nothing of the hook is left", func() bool { return !strings.Contains(r.Snapshot(t), "sleep 100") })
	r.mustRun("start", "blog")
	if s := r.awaitState("blog", emperor.Running); s.PID == first.PID {
		t.Errorf("%+v", s)
	}
	r.stop(syscall.SIGTERM)
}

// A real uwsgi's hooks about its emperor's words are its own.
func TestUwsgiHooksAboutItsEmperor(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.writeApps()
	r.drop("app", oneWorker+"hook-emperor-reload = writen:/run/t/www/reload yes\nhook-emperor-stop = writen:/run/t/www/stop yes\nhook-emperor-lost = writen:/run/t/www/lost yes\n")
	r.start()
	r.awaitPage("app", "load 1")
	r.mustRun("reload", "app")
	if text := r.read("/run/t/www/reload"); text != "yes\n" {
		t.Errorf("hook-emperor-reload wrote %q", text)
	}
	r.awaitPage("app", "load 1")
	r.mustRun("stop", "app")
	if stop, lost := r.read("/run/t/www/stop"), r.read("/run/t/www/lost"); stop != "yes\n" || lost != "" {
		t.Errorf("hook-emperor-stop wrote %q, hook-emperor-lost %q", stop, lost)
	}
	r.stop(syscall.SIGTERM)
}
