package emperor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"fiefdom/internal/nettest"
)

// What a killed emperor had in v1 trees is ended and removed, but for the
// generations that keep their names; what is not the instance's is not touched.
func TestEndLimits(t *testing.T) {
	nettest.Root(t)
	const tree = "/sys/fs/cgroup/pids"
	if _, err := os.Stat(tree + "/tasks"); err != nil {
		nettest.NotHere(t, "there is no v1 tree of cgroups for pids")
	}
	i := &Instance{Name: "left-" + strconv.Itoa(os.Getpid()), Runtime: t.TempDir()}
	ours, others := filepath.Join(tree, i.cgroupName()), filepath.Join(tree, i.cgroupName()+"-other")
	for _, dir := range []string{ours, ours + "/blog.1", ours + "/shop.1", others} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
	}
	child := nettest.Sleeper(t)
	if err := os.WriteFile(ours+"/shop.1/cgroup.procs", []byte(strconv.Itoa(child.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := i.endLimits(t.Context(), (*Orphans)(nil).sparesLimits); err != nil {
		t.Errorf("without a record: %v", err)
	}
	for _, dir := range []string{ours, ours, others} {
		if err := i.recordLimits(dir); err != nil {
			t.Fatal(err)
		}
	}
	if known, err := i.limitFolders(); len(known) != 2 || err != nil {
		t.Errorf("on record are %q (%v), want each once", known, err)
	}
	torn, err := os.OpenFile(i.Path(limitRecord), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = torn.WriteString("/sys/fs/cgr")
	if err := errors.Join(err, torn.Close()); err != nil {
		t.Fatal(err)
	}

	there := func(dir string) bool {
		_, err := os.Stat(dir)
		return !errors.Is(err, fs.ErrNotExist)
	}
	if err := i.endLimits(t.Context(), func(generation string) bool { return generation == "blog.1" }); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("who was left was not killed")
	}
	if !there(ours+"/blog.1") || there(ours+"/shop.1") || !there(others) {
		t.Errorf("blog.1 %v, shop.1 %v, the other's %v; want the first and the last", there(ours+"/blog.1"), there(ours+"/shop.1"), there(others))
	}
	if err := i.endLimits(t.Context(), (*Orphans)(nil).sparesLimits); err != nil || there(ours) || !there(others) {
		t.Errorf("%v; ours %v, the other's %v", err, there(ours), there(others))
	}
}
