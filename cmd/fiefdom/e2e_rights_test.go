package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// Each of many vassals, and each process of theirs, has the rights that are
// declared and no others. The kernel is asked, not the emperor. // T16
func TestRightsOfManyVassals(t *testing.T) {
	t.Parallel()
	const count, declared = 200, 7
	r := newRealm(t, nativeNetwork, nil)
	name := func(i int) string { return fmt.Sprintf("vassal%03d", i) }
	for i := range count {
		ini := "[uwsgi]\ncommand = sh -c 'sleep 4000 & exec sleep 4001'\nreload-mercy = 0\n"
		switch i % declared {
		case 0:
			ini += "cap = net_bind_service\n"
		case 1:
			ini += "attach-daemon = sleep 4003\n"
		}
		r.drop(name(i), ini)
	}
	r.allRunWithin(3*patience, count)
	const bindService = "0000000000000400"
	uids, checked, processes := map[string]string{}, 0, r.processesByUID()
	for i := range count {
		s := r.ps(name(i))
		want := noCaps
		if i%declared == 0 {
			want = bindService
		}
		for _, pid := range processes[number(s.UID)] {
			status := statusOf(r.proc(pid, "status"))
			for field, want := range map[string]string{
				"CapInh": want, "CapPrm": want, "CapEff": want, "CapBnd": want, "CapAmb": want,
				"NoNewPrivs": "1", "Seccomp": "2", "Groups": "", "Uid": fourTimes(number(s.UID)),
			} {
				if got := status[field]; got != want {
					t.Errorf("%s: process %d has %s %q, want %q", s.Name, pid, field, got, want)
				}
			}
			checked++
		}
		uid := number(s.UID)
		if other, taken := uids[uid]; taken {
			t.Errorf("%s and %s have one uid, %s", s.Name, other, uid)
		}
		uids[uid] = s.Name
	}
	if checked < 2*count {
		t.Errorf("only %d processes of %d vassals were looked at", checked, count)
	}
	r.stop(syscall.SIGTERM)
}

// processesByUID are the pids of all processes in the world, by their users.
func (r *realm) processesByUID() map[string][]int {
	r.t.Helper()
	all := map[string][]int{}
	for line := range strings.Lines(r.Run(r.t, "ps", "-eo", "uid=,pid=")) {
		var uid string
		var pid int
		if _, err := fmt.Sscan(line, &uid, &pid); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		all[uid] = append(all[uid], pid)
	}
	return all
}
