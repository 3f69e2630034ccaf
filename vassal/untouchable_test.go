package vassal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What runs in the jail cannot write our program by the process that enters,
// also when it is the file's owner (CVE-2019-5736).
func TestOurProgramIsUntouchable(t *testing.T) {
	fd, err := untouchable()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Error("our program can be opened for writing by the descriptor that is executed")
	}
	sealed, err := sealedSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sealed)
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", sealed), os.O_WRONLY, 0)
	if err == nil {
		defer w.Close()
		_, err = w.WriteAt([]byte("x"), 0)
	}
	if err == nil {
		t.Error("the sealed copy of our program can be written")
	}

	// A guest that executes what it came as shows the same file.
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	script := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(script, []byte("#!/proc/self/exe init-stage\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	guest, err := app.enter(t, script) // our program once more, without a handshake: it ends with 1
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Wait()
	if f, err := os.OpenFile(fmt.Sprintf("/proc/%d/exe", guest.PID), os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Error("our program can be opened for writing by the process that executes it in the jail")
	}
}

// Whatever numbers a guest's descriptors have here, it is our program that is
// executed: on their way to 0, 1 and 2 they are moved above the highest of them,
// which may be where our program is.
func TestDescriptorsBesideOurProgram(t *testing.T) {
	self, err := untouchable()
	if err != nil {
		t.Fatal(err)
	}
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	beside, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, self-1)
	if err != nil || beside != self-1 {
		t.Fatalf("descriptor %d is in use (%d), %v", self-1, beside, err)
	}
	out := os.NewFile(uintptr(beside), "output")
	defer out.Close()
	guest, err := app.Enter(t.Context(), Launch{Plan: app.Beside([]string{"true"}), Output: out})
	if err != nil {
		t.Fatal(err)
	}
	if exit := guest.Wait(); exit != (Exit{}) {
		t.Error(exit)
	}
}
