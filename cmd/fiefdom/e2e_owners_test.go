package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// as runs a command of the shell in the world under somebody's uid.
func (r *realm) as(uid, command string) (string, int) {
	r.t.Helper()
	out, err := r.Try(r.t, "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "timeout", "20", "sh", "-c", command)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	return out, exitOK
}

// An owner sees and commands his own vassals by every command, and others' by none. Of
// those he is told what he would be told if they were not there.
func TestOwnersCommandTheirOwn(t *testing.T) {
	t.Parallel()
	const owner, other = "2001", "2002"
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+`emperor-tyrant = true
emperor-web = /run/t/web.sock
emperor-stats = /run/t/emperor-stats.sock
metrics = /run/t/metrics.sock
`)
	r.writeAs(iniPath("blog"), ruledIni, 2001, 2001)
	r.writeAs(iniPath("shop"), ruledIni, 2002, 2002)
	r.start()
	r.reach("blog")
	shop := r.reach("shop")

	for _, tt := range []struct {
		command string // NAME is the vassal's
		own     string // what his own vassal answers with
		others  string // what another's does
		code    int    // of another's
	}{
		{"fiefdom status NAME", "vassal: blog", `no vassal "shop"`, exitNotFound},
		{"fiefdom status --json NAME", `"name": "blog"`, `no vassal "shop"`, exitNotFound},
		{"fiefdom security NAME", "(confine = default)", `no vassal "shop"`, exitNotFound},
		{"fiefdom security | grep NAME", "blog", "", 1},
		{"fiefdom logs NAME", "", `no vassal "shop"`, exitNotFound},
		{"fiefdom restart NAME", "blog is running", `no vassal "shop"`, exitNotFound},
		{"fiefdom reload NAME", "blog is running", `no vassal "shop"`, exitNotFound},
		{"fiefdom stop NAME", "blog is stopped", `no vassal "shop"`, exitNotFound},
		{"fiefdom start NAME", "blog is running", `no vassal "shop"`, exitNotFound},
		{"fiefdom exec NAME -- id -u", owner, `no vassal "shop"`, exitNotFound},
		{"fiefdom explain NAME out tcp 203.0.113.9:80", "blog.ini", `no vassal "shop"`, exitNotFound},
		{"fiefdom explain --last-drops NAME", "", `no vassal "shop"`, exitNotFound},
		{"fiefdom firewall list NAME", "blog eth0", `no network and no vassal "shop"`, exitNotFound},
		{"fiefdom firewall add NAME out any any allow", "only root changes rules", "only root changes rules", exitFailed},
		{"fiefdom firewall del NAME out 1", "only root changes rules", "only root changes rules", exitFailed},
		{"fiefdom events NAME", "blog", `no vassal "shop"`, exitNotFound},
		{"fiefdom ps | grep NAME", "blog", "", 1},
		{"fiefdom ps --json | grep NAME", "blog", "", 1},
		{"fiefdom events --json | grep NAME", "blog", "", 1},
		{"fiefdom firewall list | grep NAME", "blog", "", 1},
		{"fiefdom __complete status '' 2>/dev/null | grep NAME", "blog", "", 1},
		{"TERM=vt100 timeout 3 script -qec 'stty rows 24 cols 80; fiefdom top' /dev/null 2>/dev/null | grep NAME | tail -c 300", "blog", "", exitOK},
	} {
		out, code := r.as(owner, strings.ReplaceAll(tt.command, "NAME", "blog"))
		if !strings.Contains(out, tt.own) || code != exitOK && tt.own != tt.others {
			t.Errorf("%s of his own: exit code %d, want %q\n%s", tt.command, code, tt.own, out)
		}
		out, code = r.as(owner, strings.ReplaceAll(tt.command, "NAME", "shop"))
		if code != tt.code || !strings.Contains(out, tt.others) || tt.others == "" && strings.TrimSpace(out) != "" {
			t.Errorf("%s of another's: exit code %d, want %d with %q\n%s", tt.command, code, tt.code, tt.others, out)
		}
	}
	r.captureAsOwner(owner, other)

	for command, want := range map[string]string{
		"fiefdom firewall reload":                      "only root changes rules",
		"fiefdom firewall add fief0 out allow":         "only root changes rules",
		"fiefdom firewall list fief0":                  "no network and no vassal",
		"fiefdom upgrade":                              "only root upgrades the emperor",
		"fiefdom hosts":                                "only root sees the names of all vassals",
		"fiefdom hosts --install":                      "only root sees the names of all vassals",
		"fiefdom end emperor":                          "",
		"fiefdom --instance emperor status shop":       `no vassal "shop"`,
		"kill $(cat /run/fiefdom/emperor/lock)":        "",
		"cat /run/fiefdom/emperor/out/shop":            "ermission denied",
		"cat /var/lib/fiefdom/emperor/leases.json":     "ermission denied",
		"cat /var/lib/fiefdom/emperor/events.jsonl":    "ermission denied",
		"cat /run/fiefdom/emperor/rules":               "",
		"ls /run/fiefdom/emperor":                      "ermission denied",
		"touch " + realmDir + "/vassals/mine.ini":      "ermission denied",
		"ln -s /etc/shadow " + iniPath("x"):            "ermission denied",
		"mv " + iniPath("shop") + " " + iniPath("old"): "ermission denied",
	} {
		if out, code := r.as(owner, command); code == exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, want %q\n%s", command, code, want, out)
		}
	}
	// Sockets that are the operator's. Who may connect sees all.
	for _, path := range []string{
		"/run/t/web.sock", "/run/t/emperor-stats.sock", "/run/t/metrics.sock", "/run/fiefdom/emperor/fief0.sock", "/run/fiefdom/emperor/stats.sock",
		"/run/fiefdom/emperor/router.sock", "/run/fiefdom/emperor/vault.sock",
	} {
		connect := `python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX, int(sys.argv[2])); s.connect(sys.argv[1])' ` + path
		kind := " 1"
		if strings.HasSuffix(path, "vault.sock") {
			kind = " 5" // SOCK_SEQPACKET
		}
		if out, code := r.as("0", connect+kind); code != exitOK {
			t.Errorf("root to %s: %s", path, out)
		}
		if out, code := r.as(owner, connect+kind); code == exitOK || !strings.Contains(out, "PermissionError") {
			t.Errorf("an owner connects to %s: exit code %d\n%s", path, code, out)
		}
	}
	if now := r.reach("shop"); now.PID != shop.PID || now.State != emperor.Running {
		t.Errorf("shop had pid %d and has %d", shop.PID, now.PID)
	}
}

// captureAsOwner has an owner look at packets: his own vassal's, and another's.
func (r *realm) captureAsOwner(owner, other string) {
	r.t.Helper()
	for _, tt := range []struct {
		uid, want string
		code      int
	}{{owner, "", exitOK}, {other, `no vassal "blog"`, exitNotFound}} {
		sending := make(chan struct{})
		stop := make(chan struct{})
		go func() { // ends with stop
			defer close(sending)
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = r.Try(r.t, "fiefdom", "exec", "blog", "--", "ping", "-c", "1", "-W", "1", "10.9.0.1")
				}
			}
		}()
		out, code := r.as(tt.uid, "fiefdom capture -c 1 -w /dev/null blog icmp")
		close(stop)
		<-sending
		if code != tt.code || !strings.Contains(out, tt.want) {
			r.t.Errorf("capture by %s: exit code %d, want %d with %q\n%s", tt.uid, code, tt.code, tt.want, out)
		}
	}
}
