package vassal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"fiefdom/internal/nettest"
)

// v1Group is a path for a cgroup in the v1 tree of a controller; the test has
// to make it.
func v1Group(t *testing.T, controller string) string {
	t.Helper()
	nettest.Root(t)
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if !strings.Contains(","+m.VFSOptions+",", ","+controller+",") {
			continue
		}
		return filepath.Join(nettest.NewCgroup(t, m.Mountpoint), "group")
	}
	nettest.NotHere(t, "there is no v1 tree of cgroups for %s", controller)
	return ""
}

// The app and its children are in the ini's cgroup of a v1 tree, whose options
// hold; also where they call themselves by other pids and have another root.
func TestStartInCgroupV1(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	group := v1Group(t, "pids")
	mode := 0o750
	for name, namespaces := range map[string]uintptr{"plain": 0, "everything": everything} {
		t.Run(name, func(t *testing.T) {
			p := planOf(`(grep pids /proc/self/cgroup)`)
			p.UID, p.GID, p.Reaper = 61200, 61200, namespaces != 0
			p.Mounts, p.Proc = p.Reaper, p.Reaper
			p.Isolation = Isolation{Cgroups: []string{group}, CgroupOpts: []string{"pids.max=23"}, CgroupMode: &mode}
			out, exit := startApp(t, j, Launch{Plan: p, Namespaces: namespaces}).end(t)
			if rest := group[strings.Index(group, "fiefdom-"):]; exit.Code != 0 || !strings.HasSuffix(out, rest+"\n") {
				t.Errorf("%v: %s", exit, out)
			}
			if b, err := os.ReadFile(filepath.Join(group, "pids.max")); string(b) != "23\n" {
				t.Errorf("pids.max is %q, %v", b, err)
			}
			if st, err := os.Stat(group); err != nil || st.Mode().Perm() != 0o750 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
}

// A cgroup of the v2 tree is made as the parent of generations' own.
func TestAboveIsOfV2(t *testing.T) {
	own := newCgroup(t)
	dir := filepath.Join(string(own), "group")
	i := Isolation{Cgroups: []string{dir}}
	above, err := i.Above()
	if err != nil || string(above) != dir {
		t.Fatalf("%q, %v", above, err)
	}
	if _, err := above.Make("generation"); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != defaultCgroupMode {
		t.Errorf("%v, %v", st, err)
	}
	i.Cgroups = append(i.Cgroups, filepath.Join(string(own), "other"))
	if _, err := i.Above(); err == nil || !strings.Contains(err.Error(), "one cgroup of the v2 tree") {
		t.Errorf("two: %v", err)
	}
	none := Isolation{Cgroups: []string{t.TempDir()}}
	if above, err := none.Above(); above != "" || err != nil {
		t.Errorf("a plain folder: %q, %v", above, err)
	}
}
