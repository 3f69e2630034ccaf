package vassal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// confinedApp starts an app that says that it is up and stays.
func confinedApp(t *testing.T, p Plan) *started {
	t.Helper()
	app := startApp(t, newJail(t), Launch{Plan: p, Namespaces: fullNamespaces, Cgroup: newCgroup(t)})
	app.await(t, "up")
	return app
}

const upAndStays = "echo up; exec sleep 100"

// What hooks of root's have mounted is the app's, and that of a command beside it.
func TestGuestSeesWhatHooksMounted(t *testing.T) {
	dir := sharedFolder(t)
	p := confinedPlan(LevelDefault, upAndStays)
	p.Hooks = []Hook{{Phase: AsRoot, Action: "mount", Args: "tmpfs none " + dir}}
	app := confinedApp(t, p)
	if out, _ := app.mustEnter(t, "touch "+dir+"/file && ls "+dir).end(t); out != "file\n" {
		t.Errorf("it says %q", out)
	}
}

// What can be written and should not be is found; a hook of the app's own rights
// is no excuse.
func TestReadBackFindsWhatCanBeWritten(t *testing.T) {
	dir := sharedFolder(t)
	p := confinedPlan(LevelDefault, upAndStays)
	p.Confined.Writable = []string{dir}
	p.Hooks = []Hook{{Phase: AsUser, Action: "exec", Args: "true"}}
	app := confinedApp(t, p)
	if err := app.readBack(); err != nil {
		t.Fatal(err)
	}
	app.launch.Plan.Confined = &Confined{Level: LevelDefault}
	if err := app.readBack(); err == nil || !strings.Contains(err.Error(), dir+" can be written") {
		t.Errorf("got %v", err)
	}
}

// A private folder that is not there, though everything else is as it should be, is
// found.
func TestReadBackMissesPrivateFolders(t *testing.T) {
	app := confinedApp(t, confinedPlan(LevelDefault, upAndStays))
	if err := app.readBack(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--mount", "--pid", "--target", fmt.Sprint(app.PID), "umount", "-l", "/tmp").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := app.readBack(); err == nil || !strings.Contains(err.Error(), "/tmp is a folder of the host's, and should be a tmpfs") {
		t.Errorf("got %v", err)
	}
}

// An app that may join groups does so whenever it likes.
func TestReadBackLeavesTheAppItsRights(t *testing.T) {
	p := confinedPlan(LevelDefault, `exec python3 -c 'import os, time; os.setgroups([7]); print("up", flush=True); time.sleep(100)'`)
	p.Caps, p.KeepCaps = []string{"setgid"}, true
	if err := confinedApp(t, p).readBack(); err != nil {
		t.Error(err)
	}
}

// Where a user namespace may be made, what an app has in its own is not ours to judge.
func TestReadBackLeavesAppsTheirUserNamespaces(t *testing.T) {
	p := planOf("exec unshare -U sh -c '" + upAndStays + "'")
	p.Bounded, p.UID, p.GID, p.SetGroups = true, 61200, 61200, true
	app := startApp(t, newJail(t), Launch{Plan: p, Cgroup: newCgroup(t)})
	app.await(t, "up")
	if err := app.readBack(); err != nil {
		t.Error(err)
	}
}

// A command beside an app with a root of the ini's reads what the app reads.
func TestGuestReadsItsRoot(t *testing.T) {
	root := filepath.Join(sharedFolder(t), "root")
	nettest.Rootfs(t, root, "cat", "sleep")
	if err := os.Mkdir(root+"/code", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/code/file", []byte("up\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := confinedPlan(LevelDefault, "cat /code/file; exec sleep 100")
	p.Isolation = Isolation{Root: root, Rootfs: true}
	app := confinedApp(t, p)
	if out, _ := app.mustEnter(t, "cat /code/file 2>&1").end(t); out != "up\n" {
		t.Errorf("it says %q", out)
	}
}

// Whoever waits for orphans has the uid of root and no other right: an app of that
// uid cannot trace it, whatever the kernel knows of Landlock.
func TestReaperCannotBeTraced(t *testing.T) {
	app := confinedApp(t, confinedPlan(LevelDefault, upAndStays))
	for _, name := range []string{"exe", "root/etc/hostname", "fd/0", "environ"} {
		read := []string{"--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "head", "-c1", fmt.Sprintf("/proc/%d/%s", app.pid, name)}
		if out, err := exec.Command("setpriv", read...).CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// Nor can a hook with the app's rights trace the stage that becomes the app, of
// which other threads have all rights until then.
func TestHookAsUserCannotTraceItsStage(t *testing.T) {
	p := confinedPlan(LevelDefault, "true")
	p.UID, p.GID = 0, 0
	p.Hooks = []Hook{{Phase: AsUser, Action: "exec", Args: "exec 2>&1; head -c1 /proc/$PPID/mem; head -c1 /proc/$PPID/environ | wc -c"}}
	out, _ := startApp(t, newJail(t), Launch{Plan: p, Namespaces: fullNamespaces, Cgroup: newCgroup(t)}).end(t)
	if strings.Count(out, "ermission denied") != 2 {
		t.Errorf("it says %q", out)
	}
}

// An app of which the kernel says something else than its plan does not stay.
func TestAppThatIsElsewhereIsEnded(t *testing.T) {
	j := newJail(t)
	own := j.Inode
	j.Inode = 1 << 40 // no namespace has that
	_, err := tryStart(t, j, Launch{Plan: confinedPlan(LevelDefault, upAndStays), Namespaces: fullNamespaces, Cgroup: newCgroup(t)})
	j.Inode = own
	if err == nil || !strings.Contains(err.Error(), "not confined as it should be, and was ended: its network namespace is not its jail's") {
		t.Errorf("got %v", err)
	}
	if left := processesIn(t, own); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
