package vassal

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func TestNamespaceOf(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	s := startApp(t, j, Launch{Plan: planOf("echo up; exec sleep 1000")})
	s.line(t)
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	if inode, err := NamespaceOf(pidfd); err != nil || inode != j.Inode {
		t.Errorf("%d, %v, want %d", inode, err, j.Inode)
	}
	s.Kill()
	s.Wait()
	if inode, err := NamespaceOf(pidfd); err == nil {
		t.Errorf("%d for a process that is gone", inode)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if inode, err := NamespaceOf(null); err == nil {
		t.Errorf("%d for a descriptor that is no process", inode)
	}
}

func TestKillNamespaceSparesTheHost(t *testing.T) {
	for _, inode := range []uint64{0, OwnNamespace()} {
		if err := KillNamespace(inode); err == nil {
			t.Errorf("%d was taken", inode)
		}
	}
}

// A process whose first thread has ended is a zombie by its looks.
func TestKillNamespaceFindsOtherThreads(t *testing.T) {
	python := nettest.Program(t, "python3")
	j := newJail(t, Link{Device: "eth0"})
	p := planOf("")
	p.Args = []string{python, "-c", `import ctypes, threading, time
def stay():
    time.sleep(0.2)
    print("alone", flush=True)
    time.sleep(1000)
threading.Thread(target=stay).start()
ctypes.CDLL(None).pthread_exit(None)`}
	s := startApp(t, j, Launch{Plan: p})
	s.line(t)
	if got := processesIn(t, j.Inode); len(got) != 1 {
		t.Fatalf("processes: %v", got)
	}
	if err := KillNamespace(j.Inode); err != nil {
		t.Fatal(err)
	}
	if exit := s.Wait(); exit.Signal != unix.SIGKILL {
		t.Errorf("%+v", exit)
	}
}
