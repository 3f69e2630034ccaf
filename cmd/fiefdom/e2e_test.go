package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// realm is a world with an emperor in it. Its files are in /run/t: emperor.ini
// and the folder vassals. At the end of the test the emperor is asked to stop;
// whatever it leaves behind fails the test.
type realm struct {
	*nettest.World
	t       testing.TB
	name    string        // the instance's
	before  string        // snapshot of the world without the emperor
	log     string        // the file of the emperor's log
	program string        // in the world; empty: lasting
	environ []string      // of the emperor, beside the test's own
	longer  time.Duration // that his end may take, with very many vassals
	lasting string        // a file that may be another when the emperor has ended
	cmd     *exec.Cmd
	api     *emperor.Client
}

const (
	patience = 20 * time.Second // for what should take milliseconds: the machine may be busy
	realmDir = "/run/t"
)

// nativeNetwork is an emperor's ini with one native network that every vassal
// is attached to.
const nativeNetwork = `[uwsgi]
emperor = /run/t/vassals
tuntap-router = fief0 /run/fiefdom/emperor/fief0.sock /run/fiefdom/emperor/stats.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router-nat = auto
tuntap-router-attach = all
`

// agentIni is the least of inis: an agent in a jail.
const agentIni = "[uwsgi]\ncommand = AGENT\n"

// tellsPID is an agent whose pid is the host's, so that its answer tells who it is.
const tellsPID = agentIni + "confine = compat\n"

// scaled is the full number where make soak asks for it. Tests that use it have
// Soak in their names.
func scaled(normal, full int) int {
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		return full
	}
	return normal
}

// newRealm starts an emperor in a world of its own, with the vassals' inis that
// are given by name.
func newRealm(t *testing.T, ini string, vassals map[string]string) *realm {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", ini)
	for name, text := range vassals {
		r.drop(name, text)
	}
	r.start()
	return r
}

// layRealm writes an emperor's ini and starts nothing.
func layRealm(t *testing.T, w *nettest.World, instance, ini string) *realm {
	t.Helper()
	r := &realm{World: w, t: t, name: instance, log: filepath.Join(t.TempDir(), "log")}
	if err := os.MkdirAll(w.Path(realmDir+"/vassals"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write(realmDir+"/"+instance+".ini", ini)
	r.api = emperor.NewClient(w.Path("/run/fiefdom/" + instance))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(r.log)
			t.Logf("log of the emperor:\n%s", text)
		}
	})
	return r
}

// start starts the emperor and waits until it answers.
func (r *realm) start() {
	r.t.Helper()
	if r.before == "" {
		r.before = r.Snapshot(r.t)
		r.t.Cleanup(func() {
			if !r.t.Failed() && r.cmd.ProcessState == nil {
				r.stop(syscall.SIGTERM)
			}
		})
	}
	r.launch()
	nettest.Eventually(r.t, patience, "the emperor answers", func() bool {
		_, err := r.api.List(r.t.Context())
		return err == nil
	})
}

// launch starts the emperor.
func (r *realm) launch() {
	r.t.Helper()
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.cmd = fiefdom("run", realmDir+"/"+r.name+".ini")
	r.cmd.Path = cmp.Or(r.program, lasting)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = append(os.Environ(), r.environ...)
	r.Start(r.t, r.cmd)
}

// fiefdom is a command of the program.
func fiefdom(args ...string) *exec.Cmd { return exec.Command("fiefdom", args...) }

// wait waits for the emperor's end and returns its exit code, -1 for a signal.
func (r *realm) wait() int {
	r.t.Helper()
	late := time.AfterFunc(patience+r.longer, func() { _ = r.cmd.Process.Kill() })
	err := r.cmd.Wait()
	if !late.Stop() {
		r.t.Fatalf("the emperor did not end within %v", patience+r.longer)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// stop ends the emperor by a signal and checks that nothing of it is left.
func (r *realm) stop(by syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(by); err != nil {
		r.t.Fatal(err)
	}
	if code := r.wait(); code != exitOK {
		r.t.Errorf("after %v the emperor's exit code is %d", by, code)
	}
	r.checkNothingLeft()
}

// checkNothingLeft compares the world with what it was before the emperor,
// aside from the emperor's lasting state and the test's own files.
func (r *realm) checkNothingLeft() {
	r.t.Helper()
	if left := r.leftOver(); left != "" {
		r.t.Errorf("left over:\n%s", left)
	}
	if text, _ := os.ReadFile(r.log); bytes.Contains(text, []byte("DATA RACE")) || bytes.Contains(text, []byte("panic:")) {
		r.t.Error("the log shows a data race or a panic")
	}
}

// leftOver is what is still there that was not before the emperor.
func (r *realm) leftOver() (left string) {
	r.t.Helper()
	holds := func() bool {
		lines := strings.Split(nettest.Diff(r.before, r.Snapshot(r.t)), "\n")
		left = strings.Join(slices.DeleteFunc(lines, func(line string) bool {
			return strings.Contains(line, " file /var/lib/fiefdom") || strings.Contains(line, " file "+realmDir) ||
				r.lasting != "" && strings.Contains(line, " file "+r.lasting+" ")
		}), "\n")
		return left == ""
	}
	for range patience / (20 * time.Millisecond) { // a killed process and a namespace's devices take a moment to go
		if holds() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return left
}

// write writes a file of the world whole: nobody sees a half of it.
func (r *realm) write(path, text string) {
	r.t.Helper()
	r.writeAs(path, text, 0, 0)
}

// writeAs is write for a file that belongs to somebody.
func (r *realm) writeAs(path, text string, uid, gid int) {
	r.t.Helper()
	text = strings.NewReplacer("AGENT", agentPath(r.t), "LASTING", lasting).Replace(text)
	tmp := r.Path(path) + ".new"
	err := os.WriteFile(tmp, []byte(text), 0o644)
	err = errors.Join(err, os.Chown(tmp, uid, gid), os.Rename(tmp, r.Path(path)))
	if err != nil {
		r.t.Fatal(err)
	}
}

func iniPath(vassal string) string { return realmDir + "/vassals/" + vassal + ".ini" }

// drop writes a vassal's ini.
func (r *realm) drop(vassal, text string) { r.t.Helper(); r.write(iniPath(vassal), text) }

// remove removes a vassal's ini.
func (r *realm) remove(vassal string) {
	r.t.Helper()
	if err := os.Remove(r.Path(iniPath(vassal))); err != nil {
		r.t.Fatal(err)
	}
}

// read reads a file of the world; "" without one.
func (r *realm) read(path string) string {
	r.t.Helper()
	text, err := os.ReadFile(r.Path(path))
	// Of a process that ends while it is read /proc says ESRCH.
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		r.t.Fatal(err)
	}
	return string(text)
}

// agentPath is the agent's binary, where every uid reaches it.
func agentPath(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// ps asks for one vassal; the zero Status if there is none.
func (r *realm) ps(vassal string) emperor.Status {
	r.t.Helper()
	s, err := r.api.Get(r.t.Context(), vassal)
	if err != nil && !errors.Is(err, emperor.ErrNotFound) {
		r.t.Fatalf("status of %s: %v", vassal, err)
	}
	return s
}

// await waits until a vassal's status is as wanted.
func (r *realm) await(vassal, what string, want func(emperor.Status) bool) emperor.Status {
	r.t.Helper()
	var s emperor.Status
	held := false
	defer func() {
		if !held {
			r.t.Logf("%s is %+v", vassal, s)
		}
	}()
	nettest.Eventually(r.t, patience, vassal+" "+what, func() bool {
		s = r.ps(vassal)
		held = want(s)
		return held
	})
	return s
}

// awaitState waits for one of the states of a vassal.
func (r *realm) awaitState(vassal string, state emperor.State) emperor.Status {
	r.t.Helper()
	return r.await(vassal, "is "+string(state), func(s emperor.Status) bool { return s.State == state })
}

// reach waits until a vassal runs and its agent answers the host.
func (r *realm) reach(vassal string) emperor.Status {
	r.t.Helper()
	return r.await(vassal, "runs and answers the host", func(s emperor.Status) bool {
		return s.State == emperor.Running && len(s.Addresses) > 0 && r.answers(s.Addresses[0])
	})
}

// run runs a fiefdom command in the world and returns its output and exit code.
func (r *realm) run(args ...string) (string, int) {
	r.t.Helper()
	out, err := r.Try(r.t, "fiefdom", args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("fiefdom %q: %v", args, err)
	}
	if exit != nil {
		return out, exit.ExitCode()
	}
	return out, exitOK
}

// mustRun is run for a command that has to succeed.
func (r *realm) mustRun(args ...string) string {
	r.t.Helper()
	out, code := r.run(args...)
	if code != exitOK {
		r.t.Fatalf("fiefdom %q: exit code %d\n%s", args, code, out)
	}
	return out
}

// kill kills a process by its pid in the world.
func (r *realm) kill(pid int) { r.t.Helper(); r.Run(r.t, "kill", "-KILL", strconv.Itoa(pid)) }

// proc reads a file of a process of the world.
func (r *realm) proc(pid int, file string) string {
	r.t.Helper()
	return r.read(fmt.Sprintf("/proc/%d/%s", pid, file))
}

// inner is the pid that a process has in its own pid namespace; empty: it has ended.
func (r *realm) inner(pid int) string {
	text, err := r.Try(r.t, "sh", "-c", fmt.Sprintf("grep NSpid: /proc/%d/status", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(text)
	return fields[len(fields)-1]
}
