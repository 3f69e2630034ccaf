package main

import (
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// movesTo gives the emperor a successor with another ini, in whose pool blog has an
// address, and publishes there.
func (r *realm) movesTo(ini, pool string) {
	r.t.Helper()
	r.die()
	r.write(realmDir+"/emperor.ini", ini)
	r.start()
	r.await("blog", "has an address of the new pool", func(s emperor.Status) bool {
		return s.State == emperor.Running && len(s.Addresses) > 0 && strings.HasPrefix(s.Addresses[0].String(), pool)
	})
	nettest.Eventually(r.t, patience, "it is published there", func() bool { return r.open("8080") })
}

// An emperor whose ini has other networks than that of the one before: what its
// vassals publish there cannot go on, and costs nobody the emperor.
func TestPublishedInANetworkThatIsAnotherNow(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": publishIni("8080:8000", "8080:8000/udp")})
	r.reach("blog")
	if !r.open("8080") {
		t.Fatal("it is not published")
	}
	r.movesTo(strings.ReplaceAll(nativeNetwork, "10.9.0.1/16", "10.8.0.1/16"), "10.8.")
	r.die()
	r.write(realmDir+"/emperor.ini", noNetwork)
	r.start()
	s := r.await("blog", "is told that it has no address", func(s emperor.Status) bool { return strings.Contains(s.Error, "no address") })
	t.Log(s.State, s.Error)
	r.remove("blog")
	r.await("blog", "is gone", func(s emperor.Status) bool { return s.Name == "" })
	if out := r.Run(t, "iptables-save", "-t", "nat"); strings.Contains(out, "-j DNAT") {
		t.Errorf("rules of what is not published any more:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}

// The same of a bridge that is made: it has the addresses of the new ini, and
// no others.
func TestBridgeWithOtherAddresses(t *testing.T) {
	t.Parallel()
	const bridge = noNetwork + "bridge = br0 10.100.0.1/24\n"
	r := newRealm(t, bridge, map[string]string{"blog": "[uwsgi]\nnetwork = bridge:br0\npublish = 8080:8000\ncommand = AGENT\n"})
	r.reach("blog")
	r.movesTo(strings.ReplaceAll(bridge, "10.100.0.1/24", "10.101.0.1/24"), "10.101.")
	if out := r.Run(t, "ip", "-o", "-4", "addr", "show", "dev", "br0"); strings.Contains(out, "10.100.") {
		t.Errorf("the bridge has the address of before:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}

// A bridge that somebody removes costs its own vassals what they publish, and
// nobody else.
func TestARemovedBridgeCostsNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": bridgedVassal + "publish = 8080:8000\n",
		"shop": publishIni("8081:8000"),
	})
	r.reach("blog")
	r.reach("shop")
	r.Run(t, "ip", "link", "del", "br0")
	r.drop("shop", publishIni("8082:8000"))
	nettest.Eventually(t, patience, "shop's new port is published", func() bool { return r.open("8082") && !r.open("8081") })
	r.drop("mail", "[uwsgi]\nnetwork = bridge:br1 10.101.0.1/24\npublish = 8083:8000\ncommand = AGENT\n")
	nettest.Eventually(t, patience, "a vassal of another bridge is published", func() bool { return r.open("8083") })
	r.mustRun("restart", "blog")
	nettest.Eventually(t, patience, "blog is back, with its bridge", func() bool { return r.open("8080") && r.open("8082") && r.open("8083") })
	r.stop(syscall.SIGTERM)
}

// A bridge that gets other addresses costs those who are still in it with one of
// before what they publish, and nobody else.
func TestABridgeThatIsAnotherNowCostsNobodyElse(t *testing.T) {
	t.Parallel()
	const mail, blog = "[uwsgi]\nnetwork = bridge:br0 10.100.0.1/24\ncommand = AGENT\n", "[uwsgi]\nnetwork = bridge:br0\npublish = 8080:8000\ncommand = AGENT\n"
	r := newRealm(t, nativeNetwork, map[string]string{"mail": mail, "shop": publishIni("8081:8000")})
	r.reach("mail")
	r.reach("shop")
	r.drop("blog", blog)
	r.reach("blog")
	open := func(port string) bool {
		got, err := peerBy(r.Inet, "tcp", "198.51.100.1:"+port)
		return err == nil && got == "198.51.100.2"
	}
	nettest.Eventually(t, patience, "blog is published", func() bool { return open("8080") })
	r.drop("mail", strings.ReplaceAll(mail, "10.100.", "10.101."))
	r.await("mail", "has an address of the new pool", func(s emperor.Status) bool {
		return s.State == emperor.Running && len(s.Addresses) > 0 && strings.HasPrefix(s.Addresses[0].String(), "10.101.")
	})
	r.drop("shop", publishIni("8082:8000"))
	nettest.Eventually(t, patience, "shop's new port is published", func() bool { return open("8082") && !open("8081") })
	r.mustRun("restart", "blog")
	nettest.Eventually(t, patience, "blog is published in the new pool", func() bool { return open("8080") && open("8082") })
	r.stop(syscall.SIGTERM)
}
