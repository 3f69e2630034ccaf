package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// withKey becomes an emperor that has a key in his session keyring, as one has
// whom an operator with keys of his own started.
const withKey = `#!/usr/bin/python3
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
add, ctl = {'x86_64': (248, 250), 'aarch64': (217, 219)}[os.uname().machine]
JOIN_SESSION, SESSION = 1, -3
if libc.syscall(ctl, JOIN_SESSION, None) < 0 or libc.syscall(add, b'user', b'emperors-key', b'x', 1, SESSION) < 0:
    sys.exit('no key: ' + os.strerror(ctypes.get_errno()))
os.execv('LASTING', ['fiefdom'] + sys.argv[1:])
`

// telling is an app that tells which descriptors and keys it has: they are seen
// from inside alone.
const telling = `import os, time
for fd in range(4096):
    try: os.fstat(fd)
    except OSError: continue
    print('descriptor', fd)
try:
    with open('/proc/keys') as keys:
        for key in keys: print('key', ' '.join(key.split()[7:]))
except PermissionError: print('no sight of keys')
print('told', flush=True)
time.sleep(1000)
`

// An app has what its ini declares and what the documents promise, and nothing
// of the emperor's: the whole of its environment, ids, groups, umask,
// descriptors and keys is compared. // T24
func TestSurroundingsAreTheDeclaredOnes(t *testing.T) {
	t.Parallel()
	const declared = "uid = 2000\ngid = 2001\nadd-gid = 2002\nadd-gid = 2003\numask = 027\nenv = GREETING=good day\nenv = NAME=%n\nenv = NAME=again\n"
	own := []string{"HOME=/", "LANG=en_US.UTF-8", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ=UTC"}
	for _, clone := range clones {
		t.Run(clone.name, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+clone.ini)
			r.write("/run/t/with-key", withKey)
			r.write("/run/t/tell.py", telling)
			r.Run(t, "chmod", "+x", "/run/t/with-key")
			r.program = "/run/t/with-key"
			r.environ = []string{"SECRET=of the emperor", "LANG=en_US.UTF-8", "LC_ALL=C", "TZ=UTC"}
			// A hook of root's still has the key: it is there to be lost.
			const command = `[uwsgi]
exec-as-root = grep -q emperors-key /proc/keys
command = /usr/bin/python3 -c "exec(open('/run/t/tell.py').read())"
`
			r.drop("plain", command)
			r.drop("declared", command+declared)
			r.drop("keys", command+"confine = compat\n") // which leaves them to be seen
			r.start()
			for name, want := range map[string]struct {
				uid, gid, groups, umask string
				env                     []string
			}{
				"plain":    {"", "", "", "0022", own},
				"declared": {"2000", "2001", "2002 2003", "0027", append([]string{"GREETING=good day", "NAME=again"}, own...)},
				"keys":     {"", "", "", "0022", own},
			} {
				var told string
				s := r.await(name, "has told what it has", func(s emperor.Status) bool {
					told = r.mustRun("logs", name)
					return s.State == emperor.Running && strings.HasSuffix(told, "told\n")
				})
				if want.uid == "" {
					want.uid, want.gid = number(s.UID), number(s.UID)
				}
				status := statusOf(r.proc(s.PID, "status"))
				for field, want := range map[string]string{"Uid": fourTimes(want.uid), "Gid": fourTimes(want.gid), "Groups": want.groups, "Umask": want.umask} {
					if got := status[field]; got != want {
						t.Errorf("%s: %s is %q, want %q", name, field, got, want)
					}
				}
				env := strings.Split(strings.TrimSuffix(r.proc(s.PID, "environ"), "\x00"), "\x00")
				slices.Sort(env)
				slices.Sort(want.env)
				if !slices.Equal(env, want.env) {
					t.Errorf("%s: its environment is\n%q, want\n%q", name, env, want.env)
				}
				keys := "no sight of keys"
				if name == "keys" {
					keys = "key keyring _ses: empty"
				}
				if want := "descriptor 0\ndescriptor 1\ndescriptor 2\n" + keys + "\ntold\n"; told != want {
					t.Errorf("%s has\n%swant\n%s", name, told, want)
				}
				if name != "keys" {
					continue
				}
				if keys := r.mustRun("exec", name, "--", "cat", "/proc/keys"); strings.Count(keys, "\n") != 1 || !strings.HasSuffix(keys, " _ses: empty\n") {
					t.Errorf("%s: a command beside the app has the keys\n%s", name, keys)
				}
			}
			r.stop(syscall.SIGTERM)
		})
	}
}

func fourTimes(id string) string { return strings.TrimSpace(strings.Repeat(id+" ", 4)) }
