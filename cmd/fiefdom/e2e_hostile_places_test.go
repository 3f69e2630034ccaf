package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// exchanging changes two names with each other, as fast as it can.
const exchanging = `
import ctypes, os, sys
libc, nr = ctypes.CDLL(None), {'x86_64': 316, 'aarch64': 276}[os.uname().machine]
a, b = sys.argv[1].encode(), sys.argv[2].encode()
while libc.syscall(nr, -100, a, -100, b, 2) == 0: pass
sys.exit('it ended')
`

// What an ini lets an app write is a place, and not what somebody puts there: its
// owner changes the folder for a link to another's, and back, while the vassal
// starts again and again. What all on the host may write stays untouched, since
// the app may not. // T18
func TestSoakWritablePlaceIsNoLink(t *testing.T) {
	t.Parallel()
	const owner = 2001
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.Run(t, "sh", "-c", `cd /var/lib && mkdir -p own/data other && chmod 777 other && ln -s /var/lib/other own/link && chown -hR 2001:2001 own`)
	r.start()
	racer := exec.Command("setpriv", "--reuid=2001", "--regid=2001", "--clear-groups", "/usr/bin/python3", "-c", exchanging, "/var/lib/own/data", "/var/lib/own/link")
	var raced strings.Builder
	racer.Stdout, racer.Stderr = &raced, &raced
	r.Start(t, racer)
	r.writeAs(iniPath("guest"), "[uwsgi]\ncommand = sh -c 'for i in $(seq 200); do echo >>/var/lib/own/data/mark; done; exec sleep 1000'\nwritable = /var/lib/own/data\n", owner, owner)
	r.await("guest", "is known", func(s emperor.Status) bool { return s.State != "" })
	for range scaled(60, 1000) {
		r.run("restart", "guest")
	}
	log, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	ran := strings.Count(string(log), `msg="vassal running" vassal=guest`)
	links := strings.Count(string(log), "behind a symbolic link")
	t.Logf("it started %d times, and met the link %d times", ran, links)
	_ = racer.Process.Kill()
	if _ = racer.Wait(); raced.Len() > 0 {
		t.Errorf("nobody raced to the end: %s", raced.String())
	}
	if got := r.Run(t, "ls", "-A", "/var/lib/other"); got != "" {
		t.Errorf("it has written to another's folder: %s", got)
	}
	if got := r.Run(t, "sh", "-c", "cat /var/lib/own/*/mark | wc -l"); strings.TrimSpace(got) == "0" || ran == 0 {
		t.Errorf("it never wrote to its own: %s lines", got)
	}
}

// An owner's ini opens nothing to his app that he may not open himself. // T14
func TestOwnersPlacesAreHis(t *testing.T) {
	t.Parallel()
	const owner = 2001
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.Run(t, "sh", "-c", `cd /var/lib && mkdir -p own secret && echo of-root >secret/file && chmod 700 secret && echo of-root >own/closed && chmod 600 own/closed &&
		ln -s /var/lib/secret own/link && ln -s /var/lib/secret/file own/filelink && chown -h 2001:2001 own own/link own/filelink`)
	for name, line := range map[string]string{
		"folder":        "bind = /var/lib/secret:/tmp/place",
		"file":          "bind = /var/lib/own/closed:/tmp/place",
		"link":          "bind = /var/lib/own/link:/tmp/place",
		"link-to-file":  "bind = /var/lib/own/filelink:/tmp/place",
		"writable":      "writable = /var/lib/secret",
		"writable-link": "writable = /var/lib/own/link",
		"shadow":        "bind = /etc/shadow:/tmp/place",
		"proc":          "bind = /proc/1/root:/tmp/place",
		"descriptor":    "bind = /proc/self/fd/3:/tmp/place",
		"runtime":       "bind = /run/fiefdom/emperor:/tmp/place",
		"state":         "bind = /var/lib/fiefdom:/tmp/place",
		"root":          "bind = /:/tmp/place",
	} {
		r.writeAs(iniPath(name), "[uwsgi]\n"+line+"\ncommand = sh -c 'for p in /tmp/place /var/lib/secret /var/lib/own/closed /var/lib/own/link /tmp/place/secret /tmp/place/lib/secret; do cat $p $p/file; ls $p $p/var/lib/secret; echo x >$p/new; done; echo tried; exec sleep 1000'\n", owner, owner)
	}
	for n := range 12 {
		line := fmt.Sprintf("chdir = /proc/self/fd/%d", n)
		r.writeAs(iniPath(fmt.Sprintf("chdir-%d", n)), "[uwsgi]\n"+line+"\ncommand = sh -c 'cat ../../../../../../var/lib/secret/file; ls; cd -P .. && ls; echo tried; exec sleep 1000'\n", owner, owner)
	}
	r.start()
	all, err := r.api.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		var out string
		s = r.await(s.Name, "has tried, or cannot start", func(s emperor.Status) bool {
			out, _ = r.run("logs", s.Name)
			return s.State == emperor.Running && strings.Contains(out, "tried") || s.State == emperor.Invalid || s.State == emperor.Backoff
		})
		t.Logf("%s is %s: %s %.300q", s.Name, s.State, s.Error, out)
		for _, secret := range []string{"of-root", "root:", "leases.json"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s shows %s", s.Name, secret)
			}
		}
	}
	if got := r.Run(t, "find", "/var/lib/secret", "/var/lib/own", "-name", "new"); got != "" {
		t.Errorf("files were made: %s", got)
	}
}
