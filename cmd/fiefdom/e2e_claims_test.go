package main

import (
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

func atAddress(address string, lines ...string) string {
	return "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = " + address + "\n" + strings.Join(lines, "\n") + "\n"
}

// What one ini claims and another lets go of moves, whatever it is, without a word
// from anybody; two may swap it, written one after the other or at once.
func TestClaimsMove(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": atAddress("10.9.7.7", "publish = 8080:8000"), "shop": atAddress("10.9.7.8", "publish = 8081:8000")})
	has := func(name, address, ports string) {
		t.Helper()
		r.await(name, "has "+address+" and "+ports, func(s emperor.Status) bool {
			return s.State == emperor.Running && s.Error == "" && len(s.Addresses) > 0 && s.Addresses[0].String() == address &&
				strings.Join(emperor.PublishedTexts(s.Published), " ") == ports
		})
	}
	leads := func(port, address string) {
		t.Helper()
		nettest.Eventually(t, patience, port+" leads to "+address, func() bool {
			got, err := peerBy(r.Inet, "tcp", "198.51.100.1:"+port)
			return err == nil && got == "198.51.100.2" && strings.Contains(r.Run(t, "iptables-save", "-t", "nat"), "--dport "+port+" -j DNAT --to-destination "+address+":")
		})
	}
	has("blog", "10.9.7.7", "8080:8000")
	has("shop", "10.9.7.8", "8081:8000")

	// The ports alone, without a restart.
	r.drop("blog", atAddress("10.9.7.7", "publish = 8081:8000"))
	r.drop("shop", atAddress("10.9.7.8", "publish = 8080:8000"))
	has("blog", "10.9.7.7", "8081:8000")
	has("shop", "10.9.7.8", "8080:8000")
	leads("8080", "10.9.7.8")
	leads("8081", "10.9.7.7")

	// Addresses and ports.
	r.drop("blog", atAddress("10.9.7.8", "publish = 8080:8000"))
	r.drop("shop", atAddress("10.9.7.7", "publish = 8081:8000"))
	has("blog", "10.9.7.8", "8080:8000")
	has("shop", "10.9.7.7", "8081:8000")
	leads("8080", "10.9.7.8")
	leads("8081", "10.9.7.7")

	// The same again, read one after the other.
	r.drop("blog", atAddress("10.9.7.7", "publish = 8081:8000"))
	r.await("blog", "is refused", func(s emperor.Status) bool { return strings.Contains(s.Error, "is already") })
	r.drop("shop", atAddress("10.9.7.8", "publish = 8080:8000"))
	has("blog", "10.9.7.7", "8081:8000")
	has("shop", "10.9.7.8", "8080:8000")
	r.drop("blog", atAddress("10.9.7.8", "publish = 8080:8000"))
	r.drop("shop", atAddress("10.9.7.7", "publish = 8081:8000"))
	has("blog", "10.9.7.8", "8080:8000")
	has("shop", "10.9.7.7", "8081:8000")

	// A third waits until one of them is gone, or wants something else.
	r.drop("wiki", atAddress("10.9.7.8"))
	r.drop("mail", atAddress("10.9.7.9", "publish = 8081:8000"))
	for name, what := range map[string]string{"wiki": "address 10.9.7.8 is already used by", "mail": "is already published by"} {
		r.await(name, "is refused", func(s emperor.Status) bool {
			return s.State == emperor.Invalid && strings.Contains(s.Error, what)
		})
	}
	r.remove("blog")
	has("wiki", "10.9.7.8", "")
	r.drop("shop", atAddress("10.9.7.7", "publish = 8083:8000"))
	has("mail", "10.9.7.9", "8081:8000")
	leads("8081", "10.9.7.9")
	r.stop(syscall.SIGTERM)
}
