package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What an app may do follows from its ini, and status says it.
func TestConfinement(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-ec", "mkdir -p /var/lib/apps/blog/data /var/lib/apps/other; echo page >/var/lib/apps/blog/page; echo other >/var/lib/apps/other/page; chmod 777 /var/lib/apps/blog/data; mkdir -p /etc/fiefdom; echo key >/etc/fiefdom/key; chmod 755 /etc/fiefdom; mkdir -p /run/systemd/resolve; echo nameserver 127.0.0.53 >/run/systemd/resolve/stub; ln -sf /run/systemd/resolve/stub /etc/resolv.conf")
	r.drop("blog", agentIni+"chdir = /var/lib/apps/blog\nwritable = /var/lib/apps/blog/data\n")
	r.drop("strict", agentIni+"confine = strict\nlisten-ports = 8000\n")
	r.drop("free", agentIni+"confine = compat\n")
	r.start()
	blog := r.reach("blog")
	for command, want := range map[string]string{
		"cat page; echo new > data/new && cat data/new": "page\nnew\n",
		"hostname; id -un 2>/dev/null || id -u":         "blog\n" + strconv.Itoa(blog.UID) + "\n",
		"cat /var/lib/apps/other/page || true":          "cat: /var/lib/apps/other/page: No such file or directory\n",
		"touch page || true":                            "touch: cannot touch 'page': Permission denied\n",
		"ls /etc/fiefdom || true":                       "ls: cannot open directory '/etc/fiefdom': Permission denied\n",
		"ls /run /tmp":                                  "/run:\nsystemd\n\n/tmp:\n",
		"grep -c 10.9.0.1 /etc/resolv.conf":             "1\n",
		"echo heard > /dev/stderr":                      "heard\n",
	} {
		if out, err := r.sh(blog, command); err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q, %v; want %q", command, out, err, want)
		}
	}
	if out := r.mustRun("status", "blog"); !strings.Contains(out, "  confined: default: no capabilities, own pid mnt ipc uts, system calls filtered, landlock ") || !strings.Contains(out, "writes /var/lib/apps/blog/data\n") {
		t.Errorf("status: %s", out)
	}
	var s emperor.Status
	if err := json.Unmarshal([]byte(r.mustRun("status", "--json", "free")), &s); err != nil || s.Confinement == nil || s.Confinement.Level != "compat" || s.Confinement.Filtered {
		t.Errorf("status of free: %+v, %v", s.Confinement, err)
	}
	// A command beside the app is confined as it is.
	if out := r.mustRun("exec", "blog", "--", "sh", "-c", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; touch /var/lib/apps/blog/page; cat /var/lib/apps/other/page; true"); !strings.Contains(out, "NoNewPrivs:\t1\nSeccomp:\t2\n") {
		t.Errorf("a command: %s", out)
	}
	if out, err := r.sh(blog, "test -s page && cat page"); err != nil || out != "page\n" {
		t.Errorf("the page is now %q, %v", out, err)
	}
	strict := r.reach("strict")
	for command, want := range map[string]string{
		"cp /bin/true /tmp/t && /tmp/t":                                  "Permission denied",
		"python3 -m http.server 8001":                                    "Permission denied",
		"python3 -c 'import socket; socket.socket(socket.AF_BLUETOOTH)'": "Operation not permitted",
	} {
		if out, err := r.sh(strict, command); err == nil || !strings.Contains(out, want) {
			t.Errorf("strictly, %s: %q, %v", command, out, err)
		}
	}
	if out := r.mustRun("status", "strict"); !strings.Contains(out, "listens on 8000\n") {
		t.Errorf("status: %s", out)
	}
}

// The host replaces a file that only root may read, as passwd(1) does, beneath the mask
// of an app of uid 0. It stays closed to the app and to commands beside it.
func TestReplacedSecretStaysClosedToRoot(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni + "uid = 0\n"})
	blog := r.reach("blog")
	r.Run(t, "sh", "-ec", "umask 077; cp -p /etc/shadow /run/t/shadow; echo root:secret >/etc/new; mv /etc/new /etc/shadow; echo secret >/etc/later; mkdir /etc/folder /etc/ssl/folder; echo secret >/etc/folder/file; echo secret >/etc/ssl/folder/file")
	for file, want := range map[string]string{
		"/etc/shadow": "Permission denied", "/etc/later": "Permission denied", "/etc/passwd": "root:", "/etc/ssl/openssl.cnf": "[", "/etc/resolv.conf": "nameserver",
	} {
		if out, _ := r.sh(blog, "cat "+file); !strings.Contains(out, want) {
			t.Errorf("it reads %s: %.200q, want %q", file, out, want)
		}
		if out, _ := r.run("exec", "blog", "--", "cat", file); !strings.Contains(out, want) {
			t.Errorf("a command reads %s: %.200q, want %q", file, out, want)
		}
	}
	// What joins later meets folders that are not masked there.
	for _, file := range []string{"/etc/folder/file", "/etc/ssl/folder/file"} {
		if out, code := r.run("exec", "blog", "--", "cat", file); code == exitOK || !strings.Contains(out, "Permission denied") {
			t.Errorf("a command reads %s: %.200q", file, out)
		}
	}
	r.Run(t, "sh", "-ec", "mv /run/t/shadow /etc/shadow; rm -r /etc/later /etc/folder /etc/ssl/folder")
	r.stop(syscall.SIGTERM)
}

// Whoever waits for an app's orphans, as the first process of its pid namespace,
// costs little, however big our program is.
func TestReaperIsSmall(t *testing.T) {
	t.Parallel()
	r := startBuilt(t, map[string]string{
		"blog":   "[uwsgi]\ncommand = sleep 1000\n",
		"ranged": "[uwsgi]\nuserns = auto\ncommand = sleep 1000\n",
		"daemon": "[uwsgi]\nuserns = auto\ncommand = sleep 1000\nattach-daemon = exec sleep 1001\n", // beside each process there is one
	})
	for _, name := range []string{"blog", "ranged"} {
		r.reaperIsSmall(name, r.awaitState(name, emperor.Running).PID)
	}
	s := r.await("daemon", "has its daemon", func(s emperor.Status) bool { return attached(s, "sleep").PID != 0 })
	r.reaperIsSmall("daemon", attached(s, "sleep").PID)
}

// reaperIsSmall looks at the parent of a vassal's process.
func (r *realm) reaperIsSmall(name string, pid int) {
	t := r.t
	t.Helper()
	reaper := r.reaper(emperor.Status{PID: pid})
	const most = 3 << 10 // kB
	private := func() (sum int) {
		for name, value := range statusOf(r.proc(reaper, "smaps_rollup")) {
			if strings.HasPrefix(name, "Private_") {
				n, _ := strconv.Atoi(strings.Fields(value)[0])
				sum += n
			}
		}
		return sum
	}
	nettest.Eventually(t, patience, fmt.Sprintf("the reaper of %s has less than %d kB of its own", name, most), func() bool { return private() > 0 && private() < most })
	t.Logf("the reaper of %s has %d kB of its own", name, private())
}
