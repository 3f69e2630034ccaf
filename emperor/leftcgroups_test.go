package emperor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// What a killed emperor has left in a cgroup that an ini names is ended with all
// its children, as that in the instance's own is.
func TestLeftoversInAnInisCgroup(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	above := testCgroup(t)
	r := newRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncgroup = "+string(above)+"\ncommand = /bin/sh -c 'setsid sleep 1000 & echo $!; exec sleep 1000'\nreload-mercy = 0\n")
	r.awaitState(t, "blog", Running)
	record := r.Instance.Path(cgroupRecords, "blog")
	path, err := os.ReadFile(record)
	if err != nil || string(path) != filepath.Join(string(above), "blog.1") {
		t.Fatalf("%q, %v", path, err)
	}
	r.awaitOutput(t, "blog | ")
	pids, err := os.ReadFile(filepath.Join(string(path), "cgroup.procs"))
	if err != nil || len(strings.Fields(string(pids))) != 2 {
		t.Fatalf("%q, %v", pids, err)
	}
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil {
		t.Fatal(s, err)
	}
	if _, err := os.Stat(record); err == nil {
		t.Error("the record is left")
	}

	// A killed emperor's record, and a process of it.
	if err := r.Instance.recordCgroup("blog", above+"/blog.7"); err != nil {
		t.Fatal(err)
	}
	c, err := above.Make("blog.7")
	if err != nil {
		t.Fatal(err)
	}
	left := nettest.Sleeper(t)
	write(t, filepath.Join(string(c), "cgroup.procs"), strconv.Itoa(left.Process.Pid))
	write(t, r.Instance.Path(cgroupRecords, "shop"), string(above)) // cut short
	if err := r.Instance.endCgroups(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := left.Wait(); err == nil {
		t.Error("it lives")
	}
	if _, err := os.Stat(string(c)); err == nil {
		t.Error("its cgroup is left")
	}
	if _, err := os.Stat(string(above)); err != nil {
		t.Errorf("the ini's cgroup went with a record that was cut short: %v", err)
	}
}
