package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// T62: on a machine that lacks something an emperor refuses to start, says what to
// do and leaves nothing, or does what he can without it; doctor names it. (Trees of
// cgroups of version 1 have tests of their own, and so has what doctor says of each.)
func TestPoorHosts(t *testing.T) {
	t.Parallel()
	const plain = "[uwsgi]\nemperor = /run/t/vassals\n"
	const noNAT = plain + "tuntap-router = fief0 /run/fiefdom/emperor/fief0.sock\ntuntap-router-address = 10.9.0.1/16\ntuntap-router-attach = all\n"
	for _, host := range []struct {
		name    string
		prepare string // a shell's words, in a mount namespace of the emperor's own
		ini     string
		refuses []string // what the log says then; none: he runs, and so does a vassal
		check   string   // of doctor, which is not ok
	}{
		{"no iptables", "PATH=/nonexistent", nativeNetwork, []string{"iptables", "not installed"}, "iptables"},
		{"no iptables, and no need of it", "PATH=/nonexistent", plain, nil, "iptables"},
		{"no tun", "mount -t tmpfs none /dev/net", nativeNetwork, []string{"/dev/net/tun", "modprobe tun"}, "tun"},
		{"no tun, and no need of it", "mount -t tmpfs none /dev/net", plain, nil, "tun"},
		{"no cgroups", "umount -R -l /sys/fs/cgroup", nativeNetwork, nil, "cgroup"},
		{"cgroups for reading", `m=$(findmnt -nro TARGET -t cgroup2 | tail -n 1); mount -o remount,bind,ro "$m"`, nativeNetwork, nil, "cgroup"},
		{"no IPv6", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6", nativeNetwork, nil, ""},
		{
			"no IPv6, which the ini asks for", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
			nativeNetwork + "tuntap-router-address = fd00:9::1/64\n",
			[]string{"network fief0", "fd00:9::1/64"},
			"",
		},
		{"a root for reading", "mount -o remount,bind,ro /", nativeNetwork, nil, ""},
		{"no place for its state", "mount -o remount,bind,ro /var/lib", nativeNetwork, []string{"state directory", "read-only"}, ""},
		{"a container's /proc", "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys", noNAT, []string{"/proc/sys/net: read-only", "remount"}, "sysctls"},
		{"no right to chroot", "exec setpriv --bounding-set -sys_chroot --inh-caps -sys_chroot", nativeNetwork, []string{"empty root directory", "CAP_SYS_CHROOT"}, "caps"},
		{"no right to namespaces", "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin", nativeNetwork, []string{"not permitted"}, "namespaces"},
		{"a user namespace, and none below", "exec unshare -U -r sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"' sh", nativeNetwork, []string{"not permitted"}, ""},
		{"an ordinary user", "exec setpriv --reuid 4711 --regid 4711 --clear-groups", nativeNetwork, []string{"root"}, "user"},
	} {
		t.Run(host.name, func(t *testing.T) {
			t.Parallel()
			bin := ownBinary(t)
			r := layRealm(t, nettest.NewWorld(t), "emperor", host.ini)
			prepare := host.prepare
			if !strings.HasPrefix(prepare, "exec ") {
				prepare += "; exec"
			}
			r.writeProgram("/run/t/poor", "#!/bin/sh\nexec unshare -m sh -ec '"+strings.ReplaceAll(prepare, "'", `'\''`)+` "$@"' sh `+bin+` "$@"`+"\n")
			r.program = "/run/t/poor"
			r.drop("blog", "[uwsgi]\ncommand = /bin/sleep 1000\n")
			out, _ := r.Try(t, "/run/t/poor", "doctor", "--json")
			for name, f := range found(t, out) {
				if bad := f.Level != levelOK; name == host.check && !bad {
					t.Errorf("doctor: %s is %+v", name, f)
				}
			}
			if host.refuses == nil {
				r.start()
				r.awaitState("blog", emperor.Running)
				r.stop(syscall.SIGTERM)
				return
			}
			r.before = r.Snapshot(t)
			r.launch()
			if code := r.wait(); code == exitOK || code < 0 {
				t.Errorf("exit code %d", code)
			}
			log, err := os.ReadFile(r.log)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range host.refuses {
				if !strings.Contains(string(log), word) {
					t.Errorf("it does not say %q", word)
				}
			}
			if strings.Contains(string(log), "emperor running") {
				t.Error("it has run")
			}
			r.checkNothingLeft()
		})
	}
}
