package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// ownBinary is the program's path, where every uid reaches it.
func ownBinary(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{filepath.Dir(lasting), filepath.Dir(filepath.Dir(lasting))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return lasting
}

// published is what an emperor writes for a port, as far as doctor reads it.
const published = `iptables -t nat -N fiefdom-x-pre; iptables -N fiefdom-x-fwd
	iptables -t nat -A fiefdom-x-pre -p tcp --dport 8080 -j DNAT --to-destination 10.9.0.7:8000
	iptables -A fiefdom-x-fwd -d 10.9.0.0/16 -o fief0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
`

// illMachines are machines with one thing wrong each, made by a script in a world
// of its own. Doctor has to find that thing and nothing else.
var illMachines = []struct {
	name    string
	prepare string // ends by running "$@"
	args    []string
	check   string
	level   string
	detail  string
	fix     string
}{
	{
		name: "not root", prepare: `exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`,
		check: "user", level: levelFail, detail: "uid 65534", fix: "root",
	},
	{
		name: "no namespaces", prepare: `exec unshare -U -r sh -c 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"' sh "$@"`,
		check: "namespaces", level: levelFail, detail: "no space left", fix: "user.max_net_namespaces",
	},
	{
		name: "no tun device", prepare: `mount -t tmpfs none /dev/net; exec "$@"`,
		check: "tun", level: levelFail, detail: "/dev/net/tun", fix: "modprobe tun",
	},
	{
		name: "tun is no device", prepare: `touch /run/tun; mount --bind /run/tun /dev/net/tun; exec "$@"`,
		check: "tun", level: levelFail, detail: "inappropriate ioctl", fix: "ls -l /dev/net/tun",
	},
	{
		name: "tun forbidden", prepare: `mount -t tmpfs -o nodev none /dev/net; mknod /dev/net/tun c 10 200; exec "$@"`,
		check: "tun", level: levelFail, detail: "permission denied", fix: "--device /dev/net/tun",
	},
	{
		name: "no cgroup tree", prepare: `umount -R -l /sys/fs/cgroup; exec "$@"`,
		check: "cgroup", level: levelWarn, detail: "no cgroup2 file system", fix: "mount -t cgroup2",
	},
	{
		name: "read-only cgroup tree", prepare: `m=$(findmnt -nro TARGET -t cgroup2 | tail -n 1); mount -o remount,bind,ro "$m"; exec "$@"`,
		check: "cgroup", level: levelWarn, detail: "read-only", fix: "writable",
	},
	{
		name: "no iptables", prepare: `PATH=/nonexistent exec "$@"`,
		check: "iptables", level: levelFail, detail: "not installed", fix: "apt install iptables",
	},
	{
		name: "no ip6tables", prepare: `mkdir /run/bin; ln -s "$(command -v iptables)" "$(command -v iptables-restore)" /run/bin; PATH=/run/bin exec "$@"`,
		check: "ip6tables", level: levelWarn, detail: "not installed", fix: "apt install iptables",
	},
	{
		name: "iptables that does not run", prepare: `mkdir /run/bin; printf '#!/bin/sh\n[ "$1" = --version ] && echo iptables v0 && exit\necho out of order; exit 4\n' >/run/bin/iptables
			chmod +x /run/bin/iptables; PATH=/run/bin:$PATH exec "$@"`,
		check: "iptables", level: levelFail, detail: "out of order", fix: "modprobe",
	},
	{
		name: "no resolver", prepare: `: >/etc/resolv.conf; exec "$@"`,
		check: "resolvers", level: levelWarn, detail: "none", fix: "nameserver ADDRESS",
	},
	{
		name: "forwarding left on", prepare: `mkdir -p /var/lib/fiefdom/old; echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding
			printf '{"scope":"%s %s","switched":{"net.ipv4.conf.eth0.forwarding":"1"}}' "$(cat /proc/sys/kernel/random/boot_id)" "$(readlink /proc/self/ns/net)" \
				>/var/lib/fiefdom/old/forwarding.json; exec "$@"`,
		check: "forwarding", level: levelWarn, detail: "left on", fix: "sysctl -w net.ipv4.conf.eth0.forwarding=0",
	},
	{
		name: "published ports closed", prepare: published + `iptables -P FORWARD DROP; exec "$@"`,
		check: "published", level: levelWarn, detail: "0.0.0.0:8080/tcp: closed for other machines by the policy of FORWARD (-P FORWARD DROP)",
		fix: "iptables -I FORWARD -d 10.9.0.7 -p tcp --dport 8000 -m conntrack --ctstate DNAT -j ACCEPT",
	},
	{
		name: "published ports open behind a closed INPUT", prepare: published + `iptables -P INPUT DROP; exec "$@"`,
		check: "published", level: levelWarn, detail: "open for other machines although INPUT closes", fix: "publish on 127.0.0.1",
	},
	{
		name: "published ports", prepare: published + `exec "$@"`,
		check: "published", level: levelOK, detail: "0.0.0.0:8080/tcp: the host's firewall does not stand in the way",
	},
	{
		name: "published at ::1 into a bridge that iptables sees",
		prepare: `ip link add br0 type bridge; ip6tables -t nat -N fiefdom-x-out; ip6tables -N fiefdom-x-fwd
			ip6tables -t nat -A fiefdom-x-out -d ::1 -p tcp --dport 8080 -j DNAT --to-destination [fd10::7]:8000
			ip6tables -A fiefdom-x-fwd -d fd10::/64 -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables; exec "$@"`,
		check: "published", level: levelWarn, detail: "[::1]:8080/tcp: nobody reaches it", fix: "publish on 127.0.0.1 too",
	},
	{
		name: "pool clashes", prepare: `printf '[uwsgi]\nemperor = /run\ntuntap-router = f0 /run/f0.sock\ntuntap-router-address = 198.51.100.1/24\n' >/run/clash.ini; exec "$@"`,
		args:  []string{"--config", "/run/clash.ini"},
		check: "pool", level: levelFail, detail: "/run/clash.ini:3", fix: "tuntap-router-address = 10.9.0.1/24",
	},
}

func TestDoctor(t *testing.T) {
	nettest.Root(t)
	bin := ownBinary(t)
	for _, c := range illMachines {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const sees = "/proc/sys/net/bridge"
			if _, err := os.Stat(sees); err != nil && strings.Contains(c.prepare, sees) {
				nettest.NotHere(t, "the kernel has no br_netfilter: %v", err)
			}
			w := nettest.NewWorld(t)
			args := append([]string{"-m", "sh", "-ec", c.prepare, "sh", bin, "doctor", "--json"}, c.args...)
			out, err := w.Try(t, "unshare", args...)
			if (err != nil) != (c.level == levelFail) {
				t.Errorf("exit: %v, with the level %s\n%s", err, c.level, out)
			}
			f, ok := found(t, out)[c.check]
			if !ok {
				t.Fatalf("no check %q in:\n%s", c.check, out)
			}
			if f.Level != c.level || !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Fix, c.fix) {
				t.Errorf("got %+v, want level %s, detail with %q, fix with %q", f, c.level, c.detail, c.fix)
			}
		})
	}
}

func TestDoctorOfAMachineThatIsWell(t *testing.T) {
	nettest.Root(t)
	bin := ownBinary(t)
	w := nettest.NewWorld(t)
	before := w.Snapshot(t)
	out := w.Run(t, bin, "doctor", "--json")
	for name, f := range found(t, out) {
		if f.Level != levelOK || f.Fix != "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if text := w.Run(t, bin, "doctor"); strings.Count(text, "ok    ") != len(machineChecks()) {
		t.Errorf("doctor printed:\n%s", text)
	}
	if diff := nettest.Diff(before, w.Snapshot(t)); diff != "" {
		t.Errorf("doctor changed the machine:\n%s", diff)
	}
}

// found reads the findings that doctor printed; its error text follows them.
func found(t *testing.T, out string) map[string]finding {
	t.Helper()
	var list []finding
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&list); err != nil {
		t.Fatalf("read the findings: %v\n%s", err, out)
	}
	byName := map[string]finding{}
	for _, f := range list {
		byName[f.Name] = f
	}
	return byName
}

func TestJudgeKernel(t *testing.T) {
	for release, want := range map[string]string{
		"6.18.44-amd64": levelOK, "5.14.0": levelOK, "5.13.19": levelWarn, "4.19.0-27": levelWarn, "mine": levelWarn,
	} {
		if got := judgeKernel(release); got.Level != want {
			t.Errorf("%s: got %+v, want %s", release, got, want)
		}
	}
}

func TestSwitchOff(t *testing.T) {
	for line, want := range map[string]string{
		"net.ipv4.conf.eth0.forwarding = 1":  "sysctl -w net.ipv4.conf.eth0.forwarding=0",
		"net.ipv6.conf.eth0/5.accept_ra = 2": "sysctl -w net.ipv6.conf.eth0/5.accept_ra=1",
	} {
		if got := switchOff(line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func TestPrintFindings(t *testing.T) {
	var b strings.Builder
	printFindings(&b, examine([]check{
		{"one", func() finding { return fine("all is well") }},
		{"two", func() finding { return fail("first\nsecond", "broken") }},
	}))
	want := `ok    one         all is well
FAIL  two         broken
                  fix: first
                  second
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
