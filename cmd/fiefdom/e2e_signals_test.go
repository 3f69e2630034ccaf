package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// The signals of uWSGI's emperor. The scans by the clock are an hour apart, and
// back-offs as long, so that nothing happens by itself.
func TestSignalsToTheEmperor(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor",
		"[uwsgi]\nemperor = /run/t/vassals\nemperor = /run/t/unseen/*/*.ini\nemperor-freq = 3600\nemperor-throttle = 3600000\nemperor-max-throttle = 3600000\n")
	r.drop("good", "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n")
	r.drop("bad", "[uwsgi]\ncommand = /bin/sh -c 'test -e /run/t/flag && exec sleep 1000; exit 1'\nreload-mercy = 0\n")
	r.start()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", r.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(env), "GODEBUG="+noPreemption) {
		t.Errorf("the emperor's environment: %q, %v", env, err)
	}
	tell := func(sig syscall.Signal) {
		t.Helper()
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	good := r.awaitState("good", emperor.Running)
	r.awaitState("bad", emperor.Backoff)

	tell(syscall.SIGUSR1)
	r.logged(fmt.Sprintf(`msg="vassal is running" vassal=good pid=%d`, good.PID), 1)
	r.logged(`msg="vassal is backoff" vassal=bad`, 1)

	// The kernel tells nobody about what is in folders of such a pattern.
	r.Run(t, "mkdir", "-p", "/run/t/unseen/a")
	r.write("/run/t/unseen/a/late.ini", "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n")
	tell(syscall.SIGWINCH)
	r.awaitState("late", emperor.Running)

	r.write("/run/t/flag", "")
	tell(syscall.SIGURG)
	bad := r.awaitState("bad", emperor.Running)
	if now := r.ps("good"); now.PID != good.PID {
		t.Errorf("URG started another anew: %+v", now)
	}
	tell(syscall.SIGHUP)
	for _, old := range []emperor.Status{good, bad} {
		r.await(old.Name, "is started anew", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != old.PID })
	}

	tell(syscall.SIGPIPE)
	r.mustRun("restart", "good")
	if log, err := os.ReadFile(r.log); err != nil || strings.Count(string(log), "all back-offs end") != 1 {
		t.Errorf("SIGURG was sent once; the log says %d times", strings.Count(string(log), "all back-offs end"))
	}
	// The setting behind it is nobody else's.
	if env := r.proc(r.ps("good").PID, "environ"); strings.Contains(env, "GODEBUG") {
		t.Errorf("the vassal's environment: %q", env)
	}
	r.stop(syscall.SIGTERM)
}

// urgent is a program that keeps the runtime at preempting goroutines, asks for
// SIGURG as the emperor does, sends one to itself, and counts what comes.
func urgent() {
	received := make(chan os.Signal, 1000)
	signal.Notify(received, syscall.SIGURG)
	end := time.Now().Add(time.Second)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for x := 0; time.Now().Before(end); x++ {
				for range 1_000_000 {
					x += x >> 1
				}
			}
		})
	}
	for time.Now().Before(end) {
		runtime.GC()
	}
	work.Wait()
	_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
	count := 0
	for {
		select {
		case <-received:
			count++
		case <-time.After(200 * time.Millisecond): // the runtime hands signals on by a thread of its own
			fmt.Println(count)
			return
		}
	}
}

// With the runtime's setting one signal is one; without it there are more, or
// the emperor need not begin anew for its sake.
func TestEveryURGComesFromOutside(t *testing.T) {
	for setting, want := range map[string]bool{noPreemption: true, "": false} {
		cmd := exec.Command("urgent")
		cmd.Env = append(os.Environ(), "GODEBUG="+setting)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(out)) == "1"; got != want {
			t.Errorf("GODEBUG=%s: received %s signals", setting, out)
		}
	}
}
