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

// A signal that comes in the very moment of an upgrade, before the next program's
// first instruction, ends nobody, nor is it ignored for ever.
func TestSignalsDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	r.ownProgram()
	r.start()
	before := r.reach("blog")
	const whole = "/run/t/whole/fiefdom" // by its name the tests know the program
	r.write(r.program+".next", "#!/bin/sh\ntest \"$1\" = version || for s in HUP USR1 WINCH URG INT; do kill -$s $$; done\nexec "+whole+" \"$@\"\n")
	r.Run(t, "sh", "-c", fmt.Sprintf("mkdir /run/t/whole && chmod 755 %[1]s.next && cp %[1]s %[2]s && mv %[1]s.next %[1]s", r.program, whole))
	r.mustRun("upgrade")
	if why := unlike(before, r.reach("blog")); why != "" {
		t.Error(why)
	}
	r.signal(r.cmdPID(), syscall.SIGUSR1)
	r.logged(`msg="vassal is running" vassal=blog`, 1)
	r.signal(r.cmdPID(), syscall.SIGHUP)
	now := r.await("blog", "is started anew", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != before.PID })
	if status := r.proc(now.PID, "status"); !strings.Contains(status, "SigIgn:\t0000000000000000") {
		t.Errorf("the app ignores signals:\n%s", status)
	}
	r.stop(syscall.SIGINT)
}

// An upgrade that fails at the last moment leaves an emperor who obeys as before.
func TestIgnoredOrdersComeBack(t *testing.T) {
	received, stop := takeOrders()
	defer stop()
	restore := ignoreOrders()
	for _, sig := range orders {
		if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
	}
	restore()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for sig := range received { // the runtime sends URG to itself
		if sig == syscall.SIGUSR1 {
			break
		}
		if sig != syscall.SIGURG {
			t.Errorf("received %v, which was ignored", sig)
		}
	}
}
