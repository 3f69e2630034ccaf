package main

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// What /etc/hosts has of its own, and the block of layHosts' vassals.
const (
	hostsMine  = "127.0.0.1 localhost\n192.0.2.7 shop # another one\n"
	hostsMarks = "# fiefdom begin emperor (kept by fiefdom; fiefdom hosts --remove takes it away)\n"
	hostsBlog  = "10.9.7.7 blog.fiefdom.internal blog.fief0.fiefdom.internal blog\n"
	hostsRest  = "10.9.7.9 example.com.fiefdom.internal example.com.fief0.fiefdom.internal\n" +
		"10.9.7.8 shop.fiefdom.internal shop.fief0.fiefdom.internal\n# fiefdom end emperor\n"
	hostsBlock = hostsMarks + hostsBlog + hostsRest
)

// hostsIni is a vassal with an address that ends as told.
func hostsIni(last string) string {
	return "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = 10.9.7." + last + "\n"
}

// layHosts starts an emperor on a host whose /etc/hosts has something of its own.
func layHosts(t *testing.T) *realm {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/etc/hosts", hostsMine)
	r.drop("blog", hostsIni("7"))
	r.drop("shop", hostsIni("8"))
	r.drop("example.com", hostsIni("9"))
	r.start()
	r.reach("blog")
	return r
}

// hostsAre checks what /etc/hosts is.
func (r *realm) hostsAre(when, want string) {
	r.t.Helper()
	if got := r.read("/etc/hosts"); got != want {
		r.t.Errorf("%s the file is:\n%s", when, got)
	}
}

// hostsBecome waits for it.
func (r *realm) hostsBecome(after, want string) {
	r.t.Helper()
	nettest.Eventually(r.t, patience, after, func() bool { return r.read("/etc/hosts") == want })
}

// The host's own programs find vassals by /etc/hosts, for as long as somebody wants
// that, whoever overwrites the file.
func TestHostsFile(t *testing.T) {
	t.Parallel()
	r := layHosts(t)
	if out := r.mustRun("hosts"); out != hostsBlock {
		t.Errorf("hosts prints:\n%s", out)
	}
	r.hostsAre("before it is wanted", hostsMine)
	if out := r.mustRun("hosts", "--install"); out != "/etc/hosts has the names of emperor, and is kept so\n" {
		t.Errorf("--install prints %q", out)
	}
	r.hostsAre("after --install", hostsMine+hostsBlock)
	if got := r.Run(t, "getent", "hosts", "blog", "example.com.fiefdom.internal", "shop"); !strings.HasPrefix(got, "10.9.7.7 ") || !strings.Contains(got, "\n10.9.7.9 ") || !strings.Contains(got, "\n192.0.2.7 ") {
		t.Errorf("getent on the host: %s", got)
	}
	r.drop("blog", hostsIni("17"))
	moved := strings.Replace(hostsBlock, "7.7", "7.17", 1)
	r.hostsBecome("a vassal that moves", hostsMine+moved)
	r.write("/etc/hosts", "127.0.0.1 localhost\n") // as a tool that knows better would
	r.hostsBecome("a block that was taken away", "127.0.0.1 localhost\n"+strings.Replace(moved, "shop.fief0.fiefdom.internal", "shop.fief0.fiefdom.internal shop", 1))
	r.write("/etc/hosts", hostsMine)
	r.hostsBecome("a block that was taken away again", hostsMine+moved)
	r.mustRun("hosts", "--remove")
	r.hostsAre("after --remove", hostsMine)
}

// The names stay while there is no emperor, and none is missed for a moment while
// the next one starts.
func TestHostsFileOutlivesItsEmperor(t *testing.T) {
	t.Parallel()
	r := layHosts(t)
	r.mustRun("hosts", "--install")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.hostsAre("after the emperor's end", hostsMine+hostsBlock)
	over, missed := make(chan struct{}), make(chan string, 1)
	go func() { // looks all the time
		defer close(missed)
		for {
			if text, err := os.ReadFile(r.Path("/etc/hosts")); err != nil || !strings.Contains(string(text), "10.9.7.8 shop.fiefdom.internal") {
				missed <- string(text)
				return
			}
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	stop := sync.OnceFunc(func() { close(over) })
	defer stop()
	r.start()
	r.reach("shop")
	r.remove("blog")
	r.hostsBecome("a vassal that goes", hostsMine+hostsMarks+hostsRest)
	stop()
	if text, ok := <-missed; ok {
		t.Errorf("for a moment the file was:\n%s", text)
	}
}

// Whoever ends a killed emperor takes his block away, and hosts --remove one that
// nobody has.
func TestHostsFileOfNobody(t *testing.T) {
	t.Parallel()
	r := layHosts(t)
	r.mustRun("hosts", "--install")
	r.die()
	r.mustRun("end", "emperor")
	r.hostsAre("after end", hostsMine)
	r.write("/etc/hosts", hostsMine+hostsBlock)
	if out := r.mustRun("hosts", "--remove", "--json"); !strings.Contains(out, `"instance": "emperor"`) {
		t.Errorf("--remove --json prints %s", out)
	}
	r.hostsAre("after --remove without an emperor", hostsMine)
	if out, code := r.run("hosts", "--remove"); code != exitNotFound {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code := r.run("hosts", "--remove", "--install"); code != exitUsage {
		t.Errorf("exit code %d: %s", code, out)
	}
}
