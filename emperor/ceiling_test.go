package emperor

import (
	"fmt"
	"strings"
	"testing"
)

// grasps are options with which an ini reaches for rights, and such that reach
// for none.
var grasps = []string{
	"uid = root", "uid = 0", "uid = 61200", "uid = 61201", "uid = -1", "uid = 4294967296", "gid = 0", "gid = 61200", "gid = 61201", "gid = root",
	"add-gid = 0", "add-gid = root", "add-gid = 61201", "cap = sys_admin", "cap =", "cap = net_admin,setuid", "chroot = /", "chroot = /tmp",
	"exec-as-root = id", "hook-as-root = exec:id", "exec-as-user = id", "hook-post-jail = mount:none tmpfs /tmp", "mount-post-jail = none tmpfs /tmp", "umount-as-root = /proc",
	"logto = /etc/cron.d/x", "chdir = /root", "env = LD_PRELOAD=/tmp/x.so", "env = PATH=/tmp", "umask = 000", "binary-path = /tmp/uwsgi",
	"tuntap-device = eth0", "tuntap-device-address = auto", "tuntap-device-address = 10.9.0.9", "tuntap-device-address = 10.9.0.1", "tuntap-device = u0 /run/none",
	"emperor-protocol = true", "stop-signal = KILL", "reload-mercy = 3600", "jailed = false", "strict = true", "set = uid=0", "set-placeholder = x=0",
	"uid = %(x)", "for = uid gid", "endfor =", "%(_) = 0", "if-env = PATH", "endif =", "declare-option = evil=uid=0", "evil = 1", "http-socket = :80",
	"privileged-binary-patch-arg = sh -c id", "master-as-root = true", "command = /bin/id", "attach-daemon = id", "x = 0",
}

// Hooks are refused wherever they come from: what the emperor includes is a
// part of the tenant's vassal. // T31
func TestTyrantRefusesHooksOfAll(t *testing.T) {
	dir := sharedDir(t)
	write(t, dir+"/hooks.ini", "[uwsgi]\nexec-as-root = id\n")
	for _, text := range []string{"vassal-set = exec-as-root=id\n", "vassals-include = " + dir + "/hooks.ini\n", "vassals-inherit = " + dir + "/hooks.ini\n"} {
		x := expandWith(t, goodEmperor(t, text), 61200, "blog", "command = /bin/app\n")
		if x.Errors.Failed() {
			t.Fatal(x.Errors)
		}
		if errs := tyrant(x.Config, owner{61200, 61200}); !errs.Failed() || !strings.Contains(fmt.Sprint(errs), "hooks are not allowed") {
			t.Errorf("%s: %v", text, errs)
		}
	}
}
