package emperor

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
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

// Whatever a tenant writes, in tyrant mode his vassal has no more rights than
// he has, or does not start. // T30
func TestRightsAreTheOwnersSoak(t *testing.T) {
	const who = 61200
	random := rand.New(rand.NewPCG(3, 4))
	refused, fine := 0, 0
	e := testEmperor(t, Network{Device: "tun0", Socket: "/run/s", Addresses: []netip.Prefix{prefix("10.9.0.1/16")}})
	e.Config.Tyrant = true
	f := iniFile{name: "blog", path: "/v/blog.ini", owner: owner{who, who}}
	e.newMember(f)
	for range scaled(3000, 100_000) {
		lines := []string{"[uwsgi]", "command = /bin/app"}
		for range 1 + random.IntN(5) {
			lines = append(lines, grasps[random.IntN(len(grasps))])
		}
		text := strings.Join(lines, "\n") + "\n"
		x := expansion{Name: f.name, file: f}
		got, err := ini.Load(f.path, ini.Options{Limits: limits, IsOption: vassal.Known, ReadFile: func(string) ([]byte, error) { return []byte(text), nil }})
		if err != nil {
			refused++
			continue
		}
		x.Config, x.Errors = vassal.Parse(f.name, got)
		e.claims.Remove(f.name)
		if x.Errors = append(x.Errors, e.claim(e.vassals[f.name], &x)...); x.Errors.Failed() {
			refused++
			continue
		}
		r, bad := e.resolve(x.Config)
		if bad != nil {
			refused++
			continue
		}
		fine++
		p := r.plan
		switch {
		case p.UID != who || p.GID != who || !p.SetGroups || len(p.Groups) > 0 || p.LogUID != who:
			t.Fatalf("it runs as %d:%d %v, and writes as %d:\n%s", p.UID, p.GID, p.Groups, p.LogUID, text)
		case len(p.Caps) > 0 || p.KeepCaps || !p.Bounded || !p.CleanEnv:
			t.Fatalf("it keeps rights: %+v\n%s", p, text)
		case len(p.Hooks) > 0 || p.Chroot != "":
			t.Fatalf("root does something for it: %+v\n%s", p, text)
		}
	}
	t.Logf("%d fine, %d refused", fine, refused)
	if fine == 0 || refused == 0 {
		t.Errorf("%d fine, %d refused", fine, refused)
	}
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
