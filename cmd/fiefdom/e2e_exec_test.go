package main

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// A command runs where the vassal is, with the descriptors of who asks.
func TestExec(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": agentIni + "env = MOOD=good\nlimit-nproc = 200\n",
		"shop": "[uwsgi]\nattach-daemon = exec AGENT 8001\ncommand = AGENT\nenv = MOOD=better\n",
		"bad":  "[uwsgi]\ncommand = /no/such/program\n",
	})
	for _, name := range []string{"blog", "shop"} {
		s := r.reach(name)
		addr := s.Addresses[0].String()
		out := r.mustRun("exec", name, "--", "sh", "-c", `id -u; echo $MOOD; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname -I 2>/dev/null || ip -o addr; grep -E '^(CapPrm|NoNewPrivs)' /proc/self/status`)
		mood := map[string]string{"blog": "good", "shop": "better"}[name]
		for _, want := range []string{uid(s.UID) + "\n" + mood + "\n0\n", addr, "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(out, want) {
				t.Errorf("in the jail of %s there is no %q in\n%s", name, want, out)
			}
		}
	}
	shell := func(command string) (string, int) {
		out, err := r.Try(t, "sh", "-c", command)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return out, exit.ExitCode()
		}
		return out, 0
	}
	for command, want := range map[string]struct {
		out  string
		code int
	}{
		"echo hello | fiefdom exec blog -- tr a-z A-Z":                     {"HELLO\n", 0},
		"fiefdom exec blog -- sh -c 'echo out; echo err >&2' 2>/dev/null":  {"out\n", 0},
		"fiefdom exec blog -- sh -c 'exit 42'":                             {"", 42},
		"fiefdom exec blog -- sh -c 'kill -TERM $$'":                       {"", 128 + 15},
		"fiefdom exec blog ls -d /":                                        {"/\n", 0},
		"fiefdom exec nobody -- true":                                      {"no vassal", exitNotFound},
		"fiefdom exec blog":                                                {"usage", exitUsage},
		"fiefdom exec blog -- /no/such/command":                            {"/no/such/command", exitFailed},
		"fiefdom exec bad -- true":                                         {"a command needs one that runs", exitFailed}, // it is in backoff, or starting again
		"setpriv --reuid 1234 --clear-groups fiefdom exec blog -- id":      {"no vassal", exitNotFound},
		"fiefdom exec blog -- sh -c 'ls /proc/self/fd | tr \"\\n\" \" \"'": {"0 1 2 3 ", 0}, // 3 is that of ls
	} {
		if out, code := shell(command); code != want.code || !strings.Contains(out, want.out) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s", command, code, want.code, want.out, out)
		}
	}
	// At a terminal, whose end is the command's.
	out, code := shell(`script -qec 'fiefdom exec blog -- sh -c "test -t 0 && echo a terminal; stty size; echo to >/dev/tty; exit 5"' /dev/null </dev/null`)
	if code != 5 || !strings.Contains(out, "a terminal\r\n") || !strings.Contains(out, "to\r\n") {
		t.Errorf("at a terminal: exit code %d\n%s", code, out)
	}
}

// An owner may enter his own vassals only, and is no more there than they are.
func TestExecOfAnOwner(t *testing.T) {
	t.Parallel()
	const owner = 1234
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.writeAs(iniPath("blog"), agentIni, owner, owner)
	r.start()
	s := r.reach("blog")
	out, err := r.Try(t, "setpriv", "--reuid", "1234", "--clear-groups", "fiefdom", "exec", "blog", "--", "id", "-u")
	if err != nil || out != uid(s.UID)+"\n" {
		t.Errorf("its owner: %q, %v", out, err)
	}
	if out, err := r.Try(t, "setpriv", "--reuid", "1235", "--clear-groups", "fiefdom", "exec", "blog", "--", "id", "-u"); err == nil {
		t.Errorf("somebody else: %q", out)
	}
}

// ^C reaches the command; whoever hangs up ends it; the vassal's end does too.
func TestEndOfExec(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	begin := func(script string) (*exec.Cmd, *bytes.Buffer) {
		var out bytes.Buffer
		cmd := fiefdom("exec", "blog", "--", "sh", "-c", script)
		cmd.Stdout, cmd.Stderr = &out, &out
		r.Start(t, cmd)
		return cmd, &out
	}
	sleepers := func(n int) func() bool {
		return func() bool { return strings.Count(strings.Join(r.sleeping(), " "), "sleep 4321") == n }
	}
	cmd, out := begin("trap 'echo caught; exit 9' INT; sleep 4321 & wait")
	nettest.Eventually(t, patience, "the command runs", sleepers(1))
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 || out.String() != "caught\n" {
		t.Errorf("after ^C: %v, %q", err, out)
	}
	nettest.Eventually(t, patience, "what the command left has ended", sleepers(0))

	cmd, _ = begin("sleep 4321 & wait")
	nettest.Eventually(t, patience, "the command runs", sleepers(1))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	nettest.Eventually(t, patience, "the command of who hung up has ended", sleepers(0))

	cmd, _ = begin("sleep 4321 & wait")
	nettest.Eventually(t, patience, "the command runs", sleepers(1))
	r.mustRun("stop", "blog")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 128+9 {
		t.Errorf("the vassal was stopped: %v", err)
	}
	r.awaitState("blog", emperor.Stopped)
	nettest.Eventually(t, patience, "nothing is left in the jail", sleepers(0))
}

// sleeping are the command lines of the world's processes that sleep.
func (r *realm) sleeping() []string {
	out, _ := r.Try(r.t, "pgrep", "-a", "-x", "sleep")
	return strings.Split(out, "\n")
}
