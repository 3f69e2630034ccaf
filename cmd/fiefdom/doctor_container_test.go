package main

import (
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// T62: what containers and hardened machines keep from an emperor has a line of
// doctor's, which says how to give it.
func TestDoctorNamesWhatIsKeptBack(t *testing.T) {
	nettest.Root(t)
	bin := ownBinary(t)
	for check, c := range map[string]struct{ prepare, level, detail, fix string }{
		"caps": {
			`exec setpriv --bounding-set -sys_chroot,-sys_ptrace --inh-caps -sys_chroot,-sys_ptrace "$@"`,
			levelFail, "CAP_SYS_CHROOT, CAP_SYS_PTRACE", "--cap-add SYS_CHROOT --cap-add SYS_PTRACE",
		},
		"sysctls": {
			`mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"`,
			levelFail, "read-only", "remount,bind,rw /proc/sys",
		},
		"namespaces": {
			`exec unshare -U -r -n sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"' sh "$@"`,
			levelWarn, "user namespaces cannot (user.max_user_namespaces is 0): userns = auto is refused", "sysctl -w user.max_user_namespaces=10000",
		},
		"selinux": {
			`mount -t tmpfs none /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce; exec "$@"`,
			levelWarn, "in force", "ausearch",
		},
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			out, _ := nettest.NewWorld(t).Try(t, "unshare", "-m", "sh", "-ec", c.prepare, "sh", bin, "doctor", "--json")
			f := found(t, out)[check]
			if f.Level != c.level || !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Fix, c.fix) {
				t.Errorf("%+v, want level %s, detail with %q, fix with %q", f, c.level, c.detail, c.fix)
			}
		})
	}
}
