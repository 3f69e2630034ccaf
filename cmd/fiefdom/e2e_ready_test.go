package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
)

// A vassal with ready is starting until it is; one that never is has failed.
func TestReady(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"file":  "[uwsgi]\ncommand = sh -c 'echo hello; exec AGENT'\nready = exec:test -e /run/t/file-is-ready\nbind = /run/t:ro\n",
		"http":  "[uwsgi]\ncommand = AGENT\nready = http:8000/\n",
		"tcp":   "[uwsgi]\ncommand = AGENT\nready = tcp:8000\n",
		"delay": "[uwsgi]\ncommand = AGENT\nready = delay:100ms\n",
		"never": "[uwsgi]\ncommand = AGENT\nready = tcp:8001\nready-timeout = 1\n",
		"dead":  "[uwsgi]\ncommand = sh -c 'exit 3'\nready = tcp:8000\n",
	})
	s := r.await("file", "is asked", func(s emperor.Status) bool {
		return s.State == emperor.Starting && s.PID != 0 && strings.Contains(r.mustRun("logs", "file"), "hello")
	})
	for _, name := range []string{"http", "tcp", "delay"} {
		r.awaitState(name, emperor.Running)
	}
	if out := r.mustRun("exec", "file", "--", "echo", "inside"); out != "inside\n" {
		t.Errorf("a command in what is not ready yet: %q", out)
	}
	if again := r.ps("file"); again.State != emperor.Starting || again.PID != s.PID {
		t.Errorf("not ready, and %s with pid %d", again.State, again.PID)
	}
	r.write("/run/t/file-is-ready", "")
	if again := r.awaitState("file", emperor.Running); again.PID != s.PID || again.Restarts != 0 {
		t.Errorf("it became ready as pid %d, and is %d", s.PID, again.PID)
	}
	r.await("never", "has failed", func(s emperor.Status) bool {
		return s.State == emperor.Backoff && strings.Contains(s.Error, "not ready within 1s") && strings.Contains(s.Error, "refused")
	})
	r.await("dead", "has failed", func(s emperor.Status) bool {
		return s.State == emperor.Backoff && strings.Contains(s.Error, "ended before it was ready: exit code 3")
	})
	// Stopped while it starts it gets its signal, and leaves nothing.
	if err := os.Remove(r.Path("/run/t/file-is-ready")); err != nil {
		t.Fatal(err)
	}
	r.drop("file", "[uwsgi]\ncommand = sh -c 'trap \"echo asked; exit\" TERM; echo up; while :; do sleep 0.1; done'\nready = exec:test -e /run/t/file-is-ready\nbind = /run/t:ro\n")
	r.await("file", "is up", func(emperor.Status) bool { return strings.HasSuffix(r.mustRun("logs", "file"), "up\n") })
	r.mustRun("stop", "file")
	r.await("file", "was asked to stop", func(emperor.Status) bool { return strings.HasSuffix(r.mustRun("logs", "file"), "asked\n") })
}

// A hung app is found and started again in time; a slow one is left alone. // T51
func TestHealth(t *testing.T) {
	t.Parallel()
	// So many of them that no doubled time looks like a machine that was busy.
	const interval, timeout, count = 500 * time.Millisecond, 250 * time.Millisecond, 4
	const checked = "health-interval = 500ms\nhealth-timeout = 250ms\nhealth-count = 4\n"
	r := newRealm(t, nativeNetwork, map[string]string{
		"hung": agentIni + "health = http:8000/\n" + checked,
		"slow": agentIni + "health = http:8000/\n" + checked,
		"sick": agentIni + "health = exec:sh -c 'echo feverish; test ! -e /run/t/sick'\nbind = /run/t:ro\n" + checked,
	})
	for _, name := range []string{"slow", "sick"} {
		r.reach(name)
	}
	slow := r.ps("slow")
	busy := make(chan error, 1)
	go func() {
		_, err := r.sh(slow, "sleep 4") // more than interval×count
		busy <- err
	}()
	const grace = 500 * time.Millisecond // for the new start
	var again emperor.Status
	for try := 1; ; try++ { // a busy machine may be late, but not each time
		hung := r.reach("hung")
		r.signal(hung.PID, syscall.SIGSTOP)
		stopped := time.Now()
		again = r.await("hung", "is started again", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != hung.PID })
		took := time.Since(stopped)
		if took < interval*(count-1)*7/8 { // the last eighth is chance
			t.Errorf("after %v so many checks cannot have failed", took)
		}
		if took <= interval*count+timeout+grace {
			break
		}
		if try == 3 {
			t.Errorf("the third time, too, it took %v", took)
			break
		}
	}
	if !strings.Contains(again.LastEnd, "unhealthy") || !strings.Contains(again.LastEnd, "in time") {
		t.Errorf("why it was started again: %q", again.LastEnd)
	}
	if out := r.mustRun("status", "hung"); !strings.Contains(out, "unhealthy: 4 checks in a row failed") {
		t.Errorf("status says\n%s", out)
	}
	if err := <-busy; err != nil {
		t.Errorf("a slow request: %v", err)
	}
	if s := r.ps("slow"); s.PID != slow.PID {
		t.Errorf("the slow one was started again: %s", s.LastEnd)
	}
	sick := r.ps("sick")
	r.write("/run/t/sick", "")
	r.await("sick", "is started again", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != sick.PID && strings.Contains(s.LastEnd, "exit code 1") && strings.Contains(s.LastEnd, "feverish")
	})
}

// signal sends a signal to a process of the world.
func (r *realm) signal(pid int, sig syscall.Signal) {
	r.t.Helper()
	r.Run(r.t, "kill", "-"+strings.TrimPrefix(unix.SignalName(sig), "SIG"), number(pid))
}
