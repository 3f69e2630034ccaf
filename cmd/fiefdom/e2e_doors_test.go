package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// doorsEmperor has every socket that an emperor can have.
const doorsEmperor = nativeNetwork + `emperor-stats = /run/t/emperor-stats
metrics = /run/t/metrics
emperor-web = /run/t/web
`

// ownDoors are the sockets of an emperor of doorsEmperor, and who may connect.
var ownDoors = map[string]fs.FileMode{
	"/run/fiefdom/emperor/api.sock":    0o666, // the peer's uid decides
	"/run/fiefdom/emperor/exec.sock":   0o666,
	"/run/fiefdom/emperor/router.sock": 0o600,
	"/run/fiefdom/emperor/vault.sock":  0o600,
	"/run/fiefdom/emperor/fief0.sock":  0o600,
	"/run/fiefdom/emperor/stats.sock":  0o600,
	"/run/t/emperor-stats":             0o600,
	"/run/t/metrics":                   0o600,
	"/run/t/web":                       0o600,
}

// ownProcesses are the processes of ours that live as long as an emperor, by
// their names, as the world numbers them.
func (r *realm) ownProcesses() map[string]int {
	r.t.Helper()
	all := map[string]int{"emperor": r.cmdPID()}
	for _, name := range []string{"router", "vault", "responder"} {
		var pid int
		if _, err := fmt.Sscan(r.read("/run/fiefdom/emperor/"+name), &pid); err != nil {
			r.t.Fatalf("the %s's pid: %v", name, err)
		}
		all[name] = pid
	}
	return all
}

// Whoever takes a process of ours over that reads what strangers send is nobody,
// and nowhere.
func TestOwnProcessesAreConfined(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	processes := r.ownProcesses()
	delete(processes, "emperor")
	nettest.Eventually(t, patience, "the responder is what it will be", func() bool { // names are not waited for by a start
		return statusOf(r.proc(processes["responder"], "status"))["Seccomp"] == "2"
	})
	for name, pid := range processes {
		status := statusOf(r.proc(pid, "status"))
		for field, want := range map[string]string{
			"NoNewPrivs": "1", "Seccomp": "2", "Groups": "",
			"CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapAmb": noCaps,
		} {
			if got := status[field]; got != want {
				t.Errorf("the %s's %s is %q, want %q", name, field, got, want)
			}
		}
		if uid := strings.Fields(status["Uid"]); len(uid) != 4 || uid[0] == "0" || slices.Max(uid) != slices.Min(uid) {
			t.Errorf("the %s's uid is %v", name, uid)
		}
		entries, err := os.ReadDir(r.Path(fmt.Sprintf("/proc/%d/root/", pid)))
		if err != nil || len(entries) != 0 {
			t.Errorf("the %s's root has %v, %v", name, entries, err)
		}
		for _, line := range []string{"Max core file size        0                    0", "Max locked memory         0                    0"} {
			if limits := r.proc(pid, "limits"); !strings.Contains(limits, line) {
				t.Errorf("the %s's limits are\n%s", name, limits)
			}
		}
	}
}

// T12, T53: sockets are files, and root's alone unless who connects is asked for his
// uid. Nothing listens on TCP but the names, which only vassals and the host reach.
func TestDoorsAreFiles(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", doorsEmperor)
	abstract := r.abstractSockets()
	r.drop("blog", "[uwsgi]\ncommand = sh -c 'systemd-notify --ready; exec AGENT'\nready = notify\n")
	nettest.Program(t, "systemd-notify")
	r.start()
	r.reach("blog")
	if now := r.abstractSockets(); !slices.Equal(abstract, now) {
		t.Errorf("the host has the abstract sockets\n%q, and had\n%q", now, abstract)
	}
	found := map[string]fs.FileMode{}
	for _, dir := range []string{"/run/fiefdom", "/run/t"} {
		err := filepath.WalkDir(r.Path(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type() != fs.ModeSocket {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if st := unixOwner(info); st != "0:0" {
				t.Errorf("%s belongs to %s", path, st)
			}
			found[strings.TrimPrefix(path, r.Path(""))] = info.Mode().Perm()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(found, ownDoors) {
		t.Errorf("the sockets are\n%v, want\n%v", found, ownDoors)
	}
	for dir, want := range map[string]fs.FileMode{"/run/fiefdom/emperor": 0o711, "/var/lib/fiefdom/emperor": 0o700} {
		if info, err := os.Stat(r.Path(dir)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	for line := range strings.Lines(r.Run(t, "ss", "-Htlnp")) {
		at := strings.Fields(line)[3]
		if at != "10.9.0.1%fief0:53" && at != "10.9.0.1%lo:53" {
			t.Errorf("somebody listens: %s", line)
		}
	}
}

func unixOwner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "nobody"
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// abstractSockets are the names of abstract sockets in the host's network namespace.
func (r *realm) abstractSockets() (all []string) {
	r.t.Helper()
	for line := range strings.Lines(r.Run(r.t, "cat", "/proc/net/unix")) {
		if words := strings.Fields(line); len(words) == 8 && strings.HasPrefix(words[7], "@") {
			all = append(all, words[7])
		}
	}
	return all
}

// knocking connects to all sockets in its arguments as often as the first says, keeps
// what it gets, 400 at a time, waits until no more are open than the second says, and
// tells how many it got of each, and how many of those are open then.
const knocking = `import socket, sys, time
for path in sys.argv[3:]:
    kept, got = [], 0
    for n in range(int(sys.argv[1])):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if path.endswith(('exec.sock', 'vault.sock')) else socket.SOCK_STREAM)
        s.settimeout(10)
        try: s.connect(path)
        except OSError: s.close(); continue
        got += 1
        kept.append(s)
        if len(kept) > 400: kept.pop(0).close()
    end = time.monotonic() + 20
    while True:
        alive = 0
        for s in kept:
            s.setblocking(False)
            try: alive += s.recv(1) != b''
            except BlockingIOError: alive += 1
            except OSError: pass
        if alive <= int(sys.argv[2]) or time.monotonic() > end: break
        time.sleep(0.02)
    print(path, got, alive, flush=True)
`

// T08: who may not connect costs a bounded amount, and nothing when he has gone;
// a vassal and root are served meanwhile.
func TestStrangersAtTheDoorsSoak(t *testing.T) {
	t.Parallel()
	r := newRealm(t, doorsEmperor, map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	r.write("/run/t/knock.py", knocking)
	paths := slices.Sorted(maps.Keys(ownDoors))
	count := scaled(2000, 10_000)
	// What the first question of all costs is no matter of strangers.
	r.mustRun("ps")
	r.awaitNames(blog)
	r.Run(t, "/usr/bin/python3", slices.Concat([]string{"/run/t/knock.py", "20", "20"}, paths)...)
	files := r.openFiles()
	var memory map[string]int // after the first storm: those that follow cost nothing more
	for _, as := range [][]string{
		{"setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups"},
		{"unshare", "--net", "setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups"},
		{"setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "unshare", "--user", "--map-root-user", "--net"},
	} {
		most := 16
		if slices.Contains(as, "--user") {
			most = 0 // nobody listens to who is in namespaces that he made himself
		}
		out := r.Run(t, "env", slices.Concat(as, []string{"/usr/bin/python3", "/run/t/knock.py", strconv.Itoa(count), strconv.Itoa(most)}, paths)...)
		for line := range strings.Lines(out) {
			var path string
			var got, open int
			if _, err := fmt.Sscan(line, &path, &got, &open); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			everybody := ownDoors[path] == 0o666
			switch {
			case !everybody && got > 0:
				t.Errorf("%q: %d connections to %s", as, got, path)
			case everybody && got == 0:
				t.Errorf("%q: no connection to %s, which is for everybody", as, path)
			case open > most:
				t.Errorf("%q: %d connections to %s stay, at most %d may", as, open, path, most)
			}
		}
		if !r.answers(blog.Addresses[0]) {
			t.Error("the vassal is not reached")
		}
		r.mustRun("ps")
		if memory == nil {
			memory = r.residents()
		}
	}
	r.awaitFiles(files)
	for name, now := range r.residents() {
		grown := now - memory[name]
		t.Logf("the %s has grown by %d KB", name, grown)
		if grown > int(10*1024*slowness()) { // the race detector keeps books of all memory
			t.Errorf("the %s has grown too much", name)
		}
	}
}

// awaitNames waits until the responder answers for a vassal: it has its sockets then.
func (r *realm) awaitNames(s emperor.Status) {
	r.t.Helper()
	nettest.Eventually(r.t, patience, "the vassal's name is answered", func() bool {
		return r.asks(s, s.Name+".fief0", dns.TypeA) == s.Addresses[0].String()
	})
}

func (r *realm) openFiles() map[string]int {
	r.t.Helper()
	all := r.ownProcesses()
	for name, pid := range all {
		entries, err := os.ReadDir(r.Path(fmt.Sprintf("/proc/%d/fd", pid)))
		if err != nil {
			r.t.Fatal(err)
		}
		all[name] = len(entries)
	}
	return all
}

// awaitFiles waits until no process of ours has more open files than before.
func (r *realm) awaitFiles(before map[string]int) {
	r.t.Helper()
	more := ""
	defer func() {
		if more != "" {
			r.t.Log(more)
		}
	}()
	nettest.Eventually(r.t, 5*time.Second*time.Duration(slowness()), "strangers' descriptors are closed", func() bool {
		more = ""
		for name, n := range r.openFiles() {
			if n > before[name] {
				more = fmt.Sprintf("the %s has %d open, and had %d", name, n, before[name])
			}
		}
		return more == ""
	})
}

// residents are how much memory of its own each process has, in KB.
func (r *realm) residents() map[string]int {
	r.t.Helper()
	all := r.ownProcesses()
	for name, pid := range all {
		_, after, _ := strings.Cut(r.proc(pid, "smaps_rollup"), "Private_Dirty:")
		if _, err := fmt.Sscan(after, &pid); err != nil {
			r.t.Fatalf("the %s's memory: %v", name, err)
		}
		all[name] = pid
	}
	return all
}
