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

// lackingCalls becomes a program for which the kernel has not the system calls of NUMBERS.
const lackingCalls = `#!/usr/bin/python3
import ctypes, os, struct, sys
LD_NR, IS, GIVE = 0x20, 0x15, 0x06
numbers = NUMBERS[os.uname().machine]
code = [(LD_NR, 0, 0, 0)]
for n in numbers: code += [(IS, 0, 1, n), (GIVE, 0, 0, 0x50000 | 38)]
code.append((GIVE, 0, 0, 0x7fff0000))
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
prog = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(text)))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, prog, 0, 0): sys.exit('no filter: ' + os.strerror(ctypes.get_errno()))
os.execv('LASTING', ['fiefdom'] + sys.argv[1:])
`

// lackingRealm is a realm whose kernel lacks calls, by their numbers on amd64 and
// arm64.
func lackingRealm(t *testing.T, ini string, amd64, arm64 int) *realm {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", ini)
	r.program = "/run/t/without"
	r.writeProgram(r.program, strings.Replace(lackingCalls, "NUMBERS", fmt.Sprintf("{'x86_64': [%d], 'aarch64': [%d]}", amd64, arm64), 1))
	return r
}

// A kernel without Landlock confines what it can: the start says so once, doctor and
// status do, and strict apps do not run. // T62
func TestConfinementWithoutLandlock(t *testing.T) {
	t.Parallel()
	r := lackingRealm(t, nativeNetwork, 444, 444)
	r.drop("blog", agentIni)
	r.drop("shop", agentIni)
	r.drop("strict", "[uwsgi]\nconfine = strict\ncommand = sh -c 'echo it has run; exec sleep 1000'\n")
	r.start()
	const lack = "Landlock (Linux 5.13, and lsm=landlock)"
	for _, name := range []string{"blog", "shop"} {
		s := r.reach(name)
		for command, want := range map[string]string{"touch /usr/x /etc/x": "Read-only file system", "ls /etc/ssl/private /root": "Permission denied", "kill -0 2000000": "No such process"} {
			if out, err := r.sh(s, command); err == nil || !strings.Contains(out, want) {
				t.Errorf("%s: %s: %s", name, command, out)
			}
		}
		if out := r.mustRun("status", name); !strings.Contains(out, "lacking: "+lack) || strings.Contains(out, "landlock ") {
			t.Errorf("status: %s", out)
		}
	}
	s := r.await("strict", "is refused", func(s emperor.Status) bool { return s.State == emperor.Backoff })
	if want := "confine = strict: landlock: this kernel has version 0 of it, and strict wants 6 (Linux 6.12)"; !strings.Contains(s.Error, want) {
		t.Errorf("strictly: %q, want %q", s.Error, want)
	}
	if out := r.mustRun("logs", "strict"); strings.Contains(out, "it has run") {
		t.Error("the strict app has run")
	}
	text, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, lack := range []string{lack, "Landlock's ports", "Landlock's scopes"} {
		if got := strings.Count(string(text), `lacks="`+lack); got != 1 {
			t.Errorf("the log tells %d times of %s", got, lack)
		}
	}
	out, _ := r.Try(t, r.program, "doctor", "--json")
	if f := found(t, out)["confine"]; f.Level != levelWarn || !strings.Contains(f.Detail, lack) || !strings.Contains(f.Fix, "confine = strict is refused here") {
		t.Errorf("doctor: %+v", f)
	}
	r.stop(syscall.SIGTERM)
}

// A kernel without filters of system calls confines nobody, and nobody runs who was
// to be confined. // T62
func TestConfinementWithoutSeccomp(t *testing.T) {
	t.Parallel()
	r := lackingRealm(t, "[uwsgi]\nemperor = /run/t/vassals\n", 317, 277)
	const says = "command = sh -c 'echo it has run; exec sleep 1000'\n"
	r.drop("blog", "[uwsgi]\nconfine = default\n"+says)
	r.drop("free", "[uwsgi]\n"+says)
	r.start()
	r.awaitState("free", emperor.Running)
	s := r.await("blog", "is refused", func(s emperor.Status) bool { return s.State == emperor.Backoff })
	if !strings.Contains(s.Error, "seccomp filter: function not implemented") {
		t.Errorf("got %q", s.Error)
	}
	if out := r.mustRun("logs", "blog"); strings.Contains(out, "it has run") {
		t.Error("the app has run")
	}
	out, _ := r.Try(t, r.program, "doctor", "--json")
	if f := found(t, out)["confine"]; f.Level != levelFail || !strings.Contains(f.Detail, "system calls cannot be filtered") || !strings.Contains(f.Fix, "confine = compat") {
		t.Errorf("doctor: %+v", f)
	}
	r.stop(syscall.SIGTERM)
}
