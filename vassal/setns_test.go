package vassal

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// serving starts an app that gives its namespaces away.
func serving(t *testing.T, j *Jail, iso Isolation) (*started, string) {
	t.Helper()
	iso.Serve = filepath.Join(t.TempDir(), "ns.socket")
	p := planOf(own + `; echo ready; exec sleep 1000`)
	p.Mounts, p.Proc, p.Reaper, p.Isolation = true, true, true, iso
	p.Hooks = []Hook{{Phase: PostJail, Action: "hostname", Args: "served"}, {Phase: PostJail, Action: "mount", Args: "tmpfs none /mnt"}, {Phase: PostJail, Action: "mkdir", Args: "/mnt/there"}}
	s := startApp(t, j, Launch{Plan: p, Namespaces: everything &^ unix.CLONE_NEWUSER})
	var out strings.Builder
	for line := s.line(t); line != "ready"; line = s.line(t) {
		out.WriteString(line + "\n")
	}
	return s, out.String()
}

// A vassal that joins another's namespaces is where that one is, its processes
// too, and ends alone.
func TestSetns(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	host := &Jail{Name: "joins", ns: -1}
	for name, tc := range map[string]struct {
		skip []string
		same string
	}{
		"all":       {nil, "ipc mnt net pid uts"},
		"but mnt":   {[]string{"mnt"}, "ipc net pid uts"},
		"uts alone": {[]string{"mnt", "ipc", "net", "pid", "cgroup"}, "uts"},
	} {
		t.Run(name, func(t *testing.T) {
			server, theirs := serving(t, j, Isolation{Skip: tc.skip})
			p := planOf(own + `; hostname; ls /mnt; echo "pid $$"; sleep 0 & wait; exit 3`)
			p.Isolation.Setns, p.Reaper = iso(server), true
			out, exit := startApp(t, host, Launch{Plan: p}).end(t)
			if exit.Code != 3 || !strings.Contains(out, "\nserved\n") {
				t.Errorf("%v: %s", exit, out)
			}
			var same []string
			for line := range strings.Lines(theirs) {
				mine, _ := os.Readlink("/proc/thread-self/ns/" + line[:strings.Index(line, "=")])
				if strings.Contains(out, line) && !strings.Contains(line, mine) {
					same = append(same, line[:strings.Index(line, "=")])
				}
			}
			if got := strings.Join(same, " "); got != tc.same {
				t.Errorf("it joined %q, want %q:\n%s\n%s", got, tc.same, theirs, out)
			}
			if there := strings.Contains(out, "\nthere\n"); there != strings.Contains(tc.same, "mnt") {
				t.Errorf("its mounts: %s", out)
			}
			if left := processesIn(t, j.Inode); len(left) != 2 { // the reaper and sleep
				t.Errorf("the server is %v now", left)
			}
			server.Kill()
			server.Wait()
			if _, err := os.Stat(p.Isolation.Setns); err == nil {
				t.Error("the socket is left")
			}
		})
	}
}

// iso is the socket of an app that serves.
func iso(s *started) string { return s.names.listener.Addr().String() }

func TestSetnsSocketIsRoots(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	server, _ := serving(t, j, Isolation{})
	st, err := os.Stat(iso(server))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// A socket that a killed emperor left is taken over; anything else is not.
func TestSetnsSocketTakesItsPlace(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	s, err := serveNamespaces(&Isolation{Serve: filepath.Join(dir, "stale")}, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := serveNamespaces(&Isolation{Serve: file}, os.Getpid()); err == nil {
		t.Error("it took a file's place")
		s.close()
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// A server that gives what is no namespace is refused, and costs no descriptors.
func TestSetnsFromAStranger(t *testing.T) {
	nettest.NoLeaks(t)
	for name, tc := range map[string]struct {
		text string
		fds  []int
		want string
	}{
		"nothing":          {setnsGreeting, nil, "no namespaces"},
		"another greeting": {"hello setns!!", []int{0}, "no namespaces"},
		"another file":     {setnsGreeting + "\x01\x00\x00\x00", []int{0}, "no namespace"},
		"a hang-up":        {"", nil, "no namespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "socket")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := l.AcceptUnix()
				if err != nil {
					return
				}
				if tc.text != "" {
					_, _, _ = conn.WriteMsgUnix([]byte(tc.text), unix.UnixRights(tc.fds...), nil)
				}
				conn.Close()
			}()
			fds, err := askNamespaces(path)
			for _, fd := range fds {
				if _, err = nsInode(fd); err != nil {
					break
				}
			}
			closeAll(fds)
			<-done
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A vassal waits for a server that starts later.
func TestSetnsWaitsForItsServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	timer := time.AfterFunc(30*time.Millisecond, func() {
		s, err := serveNamespaces(&Isolation{Serve: path}, os.Getpid())
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { s.close() })
	})
	defer timer.Stop()
	fds, err := askNamespaces(path)
	closeAll(fds)
	if err != nil || len(fds) != len(served) {
		t.Errorf("%d, %v", len(fds), err)
	}
}
