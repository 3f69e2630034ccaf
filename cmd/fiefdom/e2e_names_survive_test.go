package main

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

func (r *realm) responderPID() (pid int) {
	_, _ = fmt.Sscan(r.read("/run/fiefdom/emperor/responder"), &pid)
	return pid
}

// asking asks for a name from a vassal's jail all the time, until it is told to stop.
// As a C library it asks again when no answer comes; it says what went wrong, and
// how long the longest question took.
func (r *realm) asking(s emperor.Status, name, want string) (stop func() (trouble string, longest time.Duration)) {
	ns := r.jailOf(s)
	over := make(chan struct{})
	var wg sync.WaitGroup
	var trouble string
	var longest time.Duration
	wg.Go(func() {
		for {
			began, got := time.Now(), ""
			for range 4 {
				if got = said(digs(r.t, ns, "udp", "10.9.0.1", query(name, dns.TypeA))); got == want {
					break
				}
			}
			longest = max(longest, time.Since(began))
			if got != want {
				trouble = got
			}
			select {
			case <-over:
				return
			case <-time.After(2 * time.Millisecond): // others want to be answered, too
			}
		}
	})
	return func() (string, time.Duration) {
		close(over)
		wg.Wait()
		return trouble, longest
	}
}

// Whoever dies or is replaced, names are answered: the emperor, the responder, the
// router, the vault; and by an upgrade.
func TestNamesSurvive(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": agentIni, "shop": "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = 10.9.7.7\n",
	})
	r.reach("shop")
	blog := r.reach("blog")
	stop := r.asking(blog, "shop", "10.9.7.7")
	first := r.responderPID()
	comesBack := func(was int) int {
		t.Helper()
		nettest.Eventually(t, patience, "another responder", func() bool { pid := r.responderPID(); return pid != 0 && pid != was })
		return r.responderPID()
	}

	r.die()
	if got := r.asks(blog, "shop.fief0", dns.TypeA); got != "10.9.7.7" || r.responderPID() != first {
		t.Errorf("without an emperor: %q", got)
	}
	r.start()
	second := comesBack(first)
	r.kill(second)
	third := comesBack(second)
	r.mustRun("upgrade")
	comesBack(third)
	r.killRouter()
	vault := 0
	_, _ = fmt.Sscan(r.read("/run/fiefdom/emperor/vault"), &vault)
	r.kill(vault)
	nettest.Eventually(t, patience, "another vault", func() bool {
		now := 0
		_, _ = fmt.Sscan(r.read("/run/fiefdom/emperor/vault"), &now)
		return now != 0 && now != vault
	})
	r.quiet()
	r.die()
	r.start()
	r.quiet()
	if trouble, longest := stop(); trouble != "" || longest > 10*time.Second {
		t.Errorf("a question took %s: %s", longest, trouble)
	}
	nettest.Eventually(t, patience, "one responder is left", func() bool {
		return r.Run(t, "sh", "-c", `ps -e -o args= | grep -c "^[^ ]*fiefdom responder " || :`) == "1\n"
	})
	// What was there before is what there is: the same vassal, not restarted.
	if now := r.reach("blog"); now.PID != blog.PID {
		t.Errorf("blog: %s", unlike(blog, now))
	}
	r.stop(syscall.SIGTERM)
}

// Names follow the vassals, and their inis.
func TestNamesFollow(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	becomes := func(name, want string) {
		t.Helper()
		nettest.Eventually(t, patience, fmt.Sprintf("%s becomes %q", name, want), func() bool { return r.asks(blog, name, dns.TypeA) == want })
	}
	r.drop("shop", "[uwsgi]\ncommand = exit 3\ntuntap-device = eth0\ntuntap-device-address = 10.9.7.7\n")
	becomes("shop.fiefdom.internal", "10.9.7.7") // also while it cannot run
	r.drop("shop", "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = 10.9.7.8\n")
	becomes("shop.fiefdom.internal", "10.9.7.8")
	r.reach("shop")
	r.mustRun("stop", "shop")
	if got := r.asks(blog, "shop", dns.TypeA); got != "10.9.7.8" {
		t.Errorf("stopped: %q", got)
	}
	r.remove("shop")
	becomes("shop.fiefdom.internal", "NXDOMAIN")
	r.stop(syscall.SIGTERM)
}

// Vassals of two networks see each other where they are on the same.
func TestNamesInTwoNetworks(t *testing.T) {
	t.Parallel()
	const second = `tuntap-router = fief1 /run/fiefdom/emperor/fief1.sock
tuntap-router-address = 10.10.0.1/24
`
	both := agentIni + "tuntap-device = eth0 /run/fiefdom/emperor/fief0.sock\ntuntap-device-address = 10.9.0.9\n" +
		"tuntap-device = eth1 /run/fiefdom/emperor/fief1.sock\ntuntap-device-address = 10.10.0.9\n"
	r := newRealm(t, nativeNetwork+second, map[string]string{
		"blog": agentIni, "both": both, "wiki": agentIni + "tuntap-device = eth0 /run/fiefdom/emperor/fief1.sock\ntuntap-device-address = 10.10.0.7\n",
	})
	blog, wiki, two := r.reach("blog"), r.reach("wiki"), r.reach("both")
	at := func(s emperor.Status, server, name string) string {
		return said(digs(t, r.jailOf(s), "udp", server, query(name, dns.TypeA)))
	}
	for _, c := range []struct{ got, want string }{
		{at(blog, "10.9.0.1", "both"), "10.9.0.9"},
		{at(blog, "10.9.0.1", "wiki.fiefdom.internal"), "NXDOMAIN"},
		{at(blog, "10.9.0.1", "wiki.fief1"), "NXDOMAIN"},
		{at(wiki, "10.10.0.1", "both"), "10.10.0.9"},
		{at(two, "10.9.0.1", "wiki"), "10.10.0.7"},
		{at(two, "10.9.0.1", "both.fief1"), "10.10.0.9"},
		{at(two, "10.10.0.1", "blog"), blog.Addresses[0].String()},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	r.stop(syscall.SIGTERM)
}

// The host's resolvers are asked, whichever they are by now, and also behind a
// stub, on loopback; never ourselves.
func TestNamesFollowTheHostsResolvers(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	var inet, local world
	resolver(t, w.Inet, nettest.InetAddr4, inet.ServeDNS)
	resolver(t, w.Host, netip.MustParseAddr("127.0.0.1"), local.ServeDNS)
	r := layRealm(t, w, "emperor", nativeNetwork)
	r.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
	r.drop("blog", agentIni)
	r.start()
	blog := r.reach("blog")
	if got := r.asks(blog, "one.example", dns.TypeA); got != "203.0.113.9" || !local.was("one.example") {
		t.Errorf("by a resolver on loopback: %q", got)
	}
	r.write("/etc/resolv.conf", "nameserver 10.9.0.1\nnameserver 198.51.100.2\n")
	nettest.Eventually(t, patience, "the other one is asked", func() bool {
		return r.asks(blog, fmt.Sprintf("two%d.example", time.Now().UnixNano()), dns.TypeA) == "203.0.113.9" && inet.was("two")
	})
	r.write("/etc/resolv.conf", "nameserver 10.9.0.1\n")
	nettest.Eventually(t, patience, "nobody is asked", func() bool {
		return r.asks(blog, fmt.Sprintf("three%d.example", time.Now().UnixNano()), dns.TypeA) == "SERVFAIL"
	})
	r.write("/etc/resolv.conf", "nameserver 127.0.0.1\n") // as it was
	r.stop(syscall.SIGTERM)
}

// Whoever asks why there are no names is told, until there are some again.
func TestAResponderThatDies(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	nameless := func() string {
		self, err := r.api.Self(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return self.Nameless
	}
	if why := nameless(); why != "" {
		t.Errorf("at first: %s", why)
	}
	killed := 0
	nettest.Eventually(t, patience, "the emperor gives up for a while", func() bool {
		if pid := r.responderPID(); pid != killed {
			killed = pid
			r.kill(pid)
		}
		return nameless() != ""
	})
	if out, _ := r.Try(t, "fiefdom", "doctor"); !strings.Contains(out, "the responder of emperor does not stay up") {
		t.Errorf("doctor:\n%s", out)
	}
	nettest.Eventually(t, patience, "it stays up", func() bool { return nameless() == "" })
	for _, kind := range []string{"names-restarted", "names-down", "names-up"} {
		if out := r.mustRun("events", "--json"); strings.Count(out, `"kind":"`+kind+`"`) != 1 {
			t.Errorf("events, for one %s:\n%s", kind, out)
		}
	}
}
