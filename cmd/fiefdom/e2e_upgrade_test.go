package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// An upgrade costs no vassal a restart, no client a request, and leaves no
// process that nobody waits for (T36). It measures, and so runs beside no other.
func TestSoakUpgrades(t *testing.T) {
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-extension = .socket\n")
	r.write(iniPath("door")+".socket", "/run/t/door\n")
	for name, text := range map[string]string{"blog": agentIni, "shop": "[uwsgi]\ncommand = AGENT\nunshare = pid,fs\n", "door": agentIni} {
		r.drop(name, text)
	}
	r.start()
	r.awaitState("door", emperor.Sleeping)
	r.mustPage("/run/t/door", "/")
	before := map[string]emperor.Status{"blog": r.reach("blog"), "shop": r.reach("shop"), "door": r.reach("door")}
	pid, router := r.cmdPID(), r.routerPID()
	// The same load without upgrades, for as long, is for who reads the log.
	load := r.visit(before["blog"].Addresses[0], "/run/t/door", scaled(200, 1000))
	upgrades := scaled(4, 50)
	began := time.Now()
	for range upgrades {
		if out := r.mustRun("upgrade"); !strings.Contains(out, fmt.Sprintf("with pid %d", pid)) {
			t.Errorf("upgrade says %q", out)
		}
		for name, s := range before {
			if why := unlike(s, r.await(name, "runs", func(s emperor.Status) bool { return s.State == emperor.Running })); why != "" {
				t.Errorf("%s: %s", name, why)
			}
		}
	}
	with := load.next()
	time.Sleep(time.Since(began)) // what is measured is a time
	without := load.next()
	load.end()
	t.Logf("%d upgrades: %v", upgrades, with)
	t.Logf("as long without: %v", without)
	if with.failed()+without.failed() > 0 {
		t.Errorf("failed requests: %d with upgrades, %d without; the last: %v", with.failed(), without.failed(), load.why)
	}
	allowed := time.Duration(scaled(1000, 100)) * time.Millisecond
	if stall := with.stall(); stall > allowed {
		t.Errorf("somebody waited %v longer than anybody beside", stall)
	}
	if now := r.routerPID(); now != router {
		t.Errorf("the router is %d, was %d", now, router)
	}
	// How a child of the emperor before ends is told, and nobody stays a zombie.
	r.kill(before["shop"].PID)
	again := r.await("shop", "is back", func(s emperor.Status) bool { return s.State == emperor.Running && s.Restarts == 1 })
	if !strings.Contains(again.LastEnd, "SIGKILL") {
		t.Errorf("it ended: %q", again.LastEnd)
	}
	nettest.Eventually(t, patience, "no child of the emperor is a zombie", func() bool {
		return !strings.Contains(r.Run(t, "ps", "--ppid", number(pid), "-o", "stat="), "Z")
	})
	r.stop(syscall.SIGTERM)
}

// Whatever does not start does not become the emperor; another program does, by
// a reload too.
func TestUpgradeToAnotherProgram(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	const path = "/run/t/fiefdom"
	r.Run(t, "sh", "-c", `cp "$(command -v fiefdom)" `+path)
	r.program = path
	r.start()
	blog := r.reach("blog")
	install := func(text string, from string) {
		t.Helper()
		next := r.Path(path + ".next")
		b := []byte(text)
		if from != "" {
			var err error
			if b, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(next, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, r.Path(path)); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if b, err := os.ReadFile(r.Path(path)); err != nil || os.WriteFile(whole, b, 0o755) != nil {
		t.Fatal(err)
	}
	install("#!/bin/sh\necho half a program; exit 1\n", "")
	if out, code := r.run("upgrade"); code != 1 || !strings.Contains(out, "half a program") {
		t.Errorf("a program that does not start: %d, %q", code, out)
	}
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.logged("not upgraded; going on", 1)
	install("", whole)
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.logged("vassal adopted", 1)
	if why := unlike(blog, r.await("blog", "runs", func(s emperor.Status) bool { return s.State == emperor.Running })); why != "" {
		t.Error(why)
	}
	r.write(realmDir+"/emperor.ini", nativeNetwork+"emperor-frq = 3\n")
	if out, code := r.run("upgrade"); code != 1 || !strings.Contains(out, "emperor-frq") {
		t.Errorf("a bad ini: %d, %q", code, out)
	}
	r.stop(syscall.SIGTERM)
}
