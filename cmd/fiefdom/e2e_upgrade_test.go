package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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
		t.Errorf("somebody waited %v longer than anybody beside him", stall)
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

// An upgrade in the moment when there is no vault, or one that is not filled yet,
// is refused, and the vassals stay as they are.
func TestUpgradeWithoutVault(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, survivors)
	before := r.all()
	refused := 0
	for range 5 {
		r.kill(r.vaultPID())
		out, code := r.run("upgrade")
		if code != exitOK {
			if refused++; !strings.Contains(out, "vault") || !strings.Contains(out, "try again") {
				t.Errorf("refused: %q", out)
			}
		}
		r.same(before)
		nettest.Eventually(t, patience, "an upgrade", func() bool { _, code := r.run("upgrade"); return code == exitOK })
		r.same(before)
	}
	if refused == 0 {
		t.Error("no upgrade came while there was no vault")
	}
	r.stop(syscall.SIGTERM)
}

// No line that an app writes during an upgrade is lost, torn or out of place,
// whoever has it in hand at that moment.
func TestNoLineIsLostByUpgrades(t *testing.T) {
	t.Parallel()
	const talks = "[uwsgi]\ncommand = /bin/sh -c 'i=0; while ! test -e /run/t/enough; do n=0; while test $n -lt 50; do i=$((i+1)); n=$((n+1)); echo line $i; done; sleep 0.002; done; echo end $i; exec sleep 1000'\n"
	r := newRealm(t, logsEmperor, map[string]string{"told": talks, "filed": talks + "logto = /run/t/filed.log\n"})
	r.logged("told | line 100", 1)
	nettest.Eventually(t, patience, "filed talks", func() bool {
		return r.exists("/run/t/filed.log") && strings.Contains(r.read("/run/t/filed.log"), "line 10\n")
	})
	for range scaled(5, 50) {
		r.mustRun("upgrade")
	}
	r.write("/run/t/enough", "")
	logs := map[string]func() string{
		"told": func() string {
			var own strings.Builder
			for line := range strings.Lines(r.allLogged()) {
				if text, ok := strings.CutPrefix(line, "told | "); ok {
					own.WriteString(text)
				}
			}
			return own.String()
		},
		"filed": func() string { return r.read("/run/t/filed.log") },
	}
	for name, log := range logs {
		nettest.Eventually(t, patience, name+" has said its last word", func() bool { return strings.Contains(log(), "\nend ") })
		n := 0
		for line := range strings.Lines(log()) {
			if n++; line != fmt.Sprintf("line %d\n", n) && line != fmt.Sprintf("end %d\n", n-1) {
				t.Errorf("%s: line %d is %q", name, n, line)
				break
			}
		}
	}
	r.stop(syscall.SIGTERM)
}

// Where no vassal can be adopted a reload is one, whatever is installed by now.
func TestReloadsWhereNobodyUpgrades(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-orphans = kill\n")
	r.drop("blog", agentIni)
	r.ownProgram()
	r.start()
	blog := r.reach("blog")
	r.Run(t, "sh", "-c", "cp "+r.program+" "+r.program+".next && mv "+r.program+".next "+r.program)
	if out, code := r.run("upgrade"); code != exitFailed || !strings.Contains(out, "emperor-orphans = kill") {
		t.Errorf("upgrade: %d, %q", code, out)
	}
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.await("blog", "is started anew", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != blog.PID })
	r.stop(syscall.SIGTERM)
}

// ownProgram gives the realm's emperor a program of its own, which can be replaced.
func (r *realm) ownProgram() {
	r.t.Helper()
	r.program = "/run/t/fiefdom"
	r.Run(r.t, "cp", lasting, r.program)
}

// Whatever does not start does not become the emperor; another program does, by
// a reload too.
func TestUpgradeToAnotherProgram(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	r.ownProgram()
	path := r.program
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

// background starts a command, whose output can be read as it comes.
func (r *realm) background(args ...string) (cmd *exec.Cmd, told, errs func() string) {
	r.t.Helper()
	cmd = fiefdom(args...)
	file := func(name string) (*os.File, func() string) {
		f, err := os.Create(filepath.Join(r.t.TempDir(), name))
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { f.Close() })
		return f, func() string { b, _ := os.ReadFile(f.Name()); return string(b) }
	}
	cmd.Stdout, told = file("told")
	cmd.Stderr, errs = file("errs")
	r.Start(r.t, cmd)
	return cmd, told, errs
}

// Who follows a vassal's output or the events does so through upgrades and
// restarts of the emperor, line by line.
func TestFollowersSurviveUpgrades(t *testing.T) {
	t.Parallel()
	const talks = "[uwsgi]\ncommand = /bin/sh -c 'i=0; while ! test -e /run/t/enough; do i=$((i+1)); echo line $i; sleep 0.002; done; echo end; exec sleep 1000'\n"
	r := newRealm(t, logsEmperor, map[string]string{"blog": talks})
	r.logged("blog | line 10", 1)
	logs, out, errs := r.background("logs", "-f", "blog")
	happened, events, _ := r.background("events", "-f", "--since", "1h", "blog")
	nettest.Eventually(t, patience, "the first line", func() bool { return out() != "" })
	for i := range scaled(3, 50) {
		r.mustRun("upgrade")
		nettest.Eventually(t, patience, "the next emperor is met", func() bool { return strings.Count(errs(), "is there again") == i+1 })
		had := len(out())
		nettest.Eventually(t, patience, "he tells more", func() bool { return len(out()) > had })
	}
	r.write("/run/t/enough", "")
	nettest.Eventually(t, patience, "the last line is told", func() bool { return strings.HasSuffix(out(), "\nend\n") })
	r.die()
	r.start()
	r.mustRun("restart", "blog")
	nettest.Eventually(t, patience, "the first line by the next emperor", func() bool { return strings.HasSuffix(out(), "\nend\nend\n") })
	nettest.Eventually(t, patience, "his events", func() bool { return strings.Count(events(), "vassal adopted") > scaled(3, 50) })
	for _, cmd := range []*exec.Cmd{logs, happened} {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			t.Errorf("%v: %v", cmd.Args, err)
		}
	}
	n := 0
	for line := range strings.Lines(out()) {
		if n++; line != fmt.Sprintf("line %d\n", n) {
			if line != "end\n" {
				t.Errorf("line %d is %q", n, line)
			}
			break
		}
	}
	r.stop(syscall.SIGTERM)
}
