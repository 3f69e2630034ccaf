package control

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRouterIsConfined(t *testing.T) {
	r := newRig(t)
	r.Threads = 4
	r.run(t)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"Uid": "65519 65519 65519 65519", "Gid": "65519 65519 65519 65519", "Groups": "",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got := fields[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	// Each thread, not only the first.
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID()))
	if err != nil || len(tasks) < 5 { // those that move packets, and at least one of Go's own
		t.Fatal(len(tasks), err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", r.PID(), task.Name()))
		if err == nil && (!strings.Contains(string(b), "Seccomp:\t2") || !strings.Contains(string(b), "NoNewPrivs:\t1")) {
			t.Errorf("thread %s: %s", task.Name(), b)
		}
	}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", r.PID())); err != nil || len(entries) != 0 {
		t.Errorf("its root has %v, %v", entries, err)
	}
	// Not dumpable: its files are root's.
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/mem", r.PID()), &st); err != nil || st.Uid != 0 {
		t.Errorf("its memory is uid %d's, %v", st.Uid, err)
	}
}
