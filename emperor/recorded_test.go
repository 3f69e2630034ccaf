package emperor

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"fiefdom/internal/nettest"
	"fiefdom/internal/pidfd"
)

func TestRecordedRouter(t *testing.T) {
	i := &Instance{Name: "x", Runtime: t.TempDir()}
	want := func(what string, pid int) {
		t.Helper()
		f, got, err := i.RecordedRouter()
		if err != nil || f != nil && got != pid || (f != nil) != (pid != 0) {
			t.Errorf("%s: %d, %v, %v; want %d", what, got, f, err, pid)
		}
		if f != nil {
			f.Close()
		}
	}
	want("no record", 0)
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
	pid := sleep.Process.Pid
	if err := i.RecordRouter(pid); err != nil {
		t.Fatal(err)
	}
	want("it lives", pid)
	for what, text := range map[string]string{"torn": "12", "empty": "", "another's pid": fmt.Sprintf("%d 1", pid)} {
		if err := os.WriteFile(i.Path(routerRecord), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want(what, 0)
	}
	if err := i.RecordRouter(pid); err != nil {
		t.Fatal(err)
	}
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	want("it is gone", 0)
}

// An app that has ended, and that its parent has not waited for, is none that
// could keep an emperor from starting.
func TestRecordedAppsThatAreZombies(t *testing.T) {
	nettest.Root(t)
	i := &Instance{Name: "x", Runtime: t.TempDir()}
	app := exec.Command("true")
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = app.Wait() }()
	if err := i.recordApp("blog", app.Process.Pid); err != nil {
		t.Fatal(err)
	}
	process, err := pidfd.Open(app.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	if err := pidfd.Await(process); err != nil {
		t.Fatal(err)
	}
	if err := i.endApps(nil); err != nil {
		t.Error(err)
	}
}
