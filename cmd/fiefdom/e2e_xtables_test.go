package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// Who holds the lock of iptables for half a minute makes no start fail: the
// starts of a running emperor do not need it, and an emperor that begins waits
// for it. // T39
func TestSoakXtablesLock(t *testing.T) {
	count := scaled(20, 200)
	vassals := map[string]string{}
	for i := range count {
		vassals[fmt.Sprintf("vassal%03d", i)] = "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n"
	}
	hold := time.Duration(scaled(3, 30)) * time.Second
	var alone time.Duration // that so many starts take without anybody's lock
	t.Run("running", func(t *testing.T) {
		r, restores := legacyRealm(t)
		r.start()
		before := restores()
		release := r.holdLock()
		for name, text := range vassals {
			r.drop(name, text)
		}
		alone = r.allRunWithin(max(hold, patience), count)
		release()
		if n := restores() - before; n > 0 {
			t.Errorf("the starts took %d restores", n)
		}
		r.stop(syscall.SIGTERM)
	})
	t.Run("beginning", func(t *testing.T) {
		r, restores := legacyRealm(t)
		for name, text := range vassals {
			r.drop(name, text)
		}
		r.before = r.Snapshot(t)
		release := r.holdLock()
		r.launch()
		time.Sleep(hold) // that somebody holds it for so long is what this is about
		if _, err := r.listSoon(); err == nil {
			t.Error("it runs without having asked for the lock")
		}
		release()
		r.allRunWithin(alone+time.Duration(3*slowness())*time.Second, count)
		if n := restores(); n == 0 || n > 5 {
			t.Errorf("%d restores, want at most 5", n)
		}
		for _, s := range r.list() {
			if s.Starts != 1 || s.Error != "" {
				t.Errorf("%s: %d starts, %s", s.Name, s.Starts, s.Error)
			}
		}
		r.stop(syscall.SIGTERM)
	})
}

// legacyRealm is a realm whose iptables takes the lock, and counts what is
// given to iptables-restore.
func legacyRealm(t *testing.T) (r *realm, restores func() int) {
	t.Helper()
	binary := nettest.Program(t, "xtables-legacy-multi")
	r = layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	dir := t.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, name := range []string{family, family + "-save"} {
			if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		script := fmt.Sprintf("#!/bin/sh\necho %[1]s >>/run/t/restores\nexec %[2]s %[1]s-restore \"$@\"\n", family, binary)
		if err := os.WriteFile(filepath.Join(dir, family+"-restore"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.environ = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	return r, func() int { return strings.Count(r.read("/run/t/restores"), "\n") }
}

// holdLock holds the lock of iptables until it is released.
func (r *realm) holdLock() (release func()) {
	r.t.Helper()
	cmd := exec.Command("flock", "/run/xtables.lock", "sh", "-c", "echo held; read end")
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	r.Start(r.t, cmd)
	if n, err := out.Read(make([]byte, 5)); n != 5 {
		r.t.Fatalf("the lock is not held: %v", err)
	}
	return func() {
		r.t.Helper()
		in.Close()
		_ = cmd.Wait() // "read" fails at the end of its input
	}
}
