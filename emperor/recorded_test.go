package emperor

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
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
