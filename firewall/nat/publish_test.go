package nat

import (
	"net"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// From everywhere, and with the client's own address wherever the answer finds
// back to it.
func TestPublish(t *testing.T) {
	for _, masquerade := range []string{Auto, ""} {
		t.Run("masquerade="+masquerade, func(t *testing.T) {
			t.Parallel()
			testPublish(t, masquerade)
		})
	}
}

func TestPublishLegacy(t *testing.T) {
	useLegacy(t)
	testPublish(t, Auto)
}

func testPublish(t *testing.T, masquerade string) {
	t.Helper()
	w := newTown(t)
	serve(t, w.pool, 8000)
	nets := networks()
	nets[0].Masquerade = masquerade
	h := newHost(t, w.host, "test", t.TempDir())
	apply(t, w.host, h, nets...)
	wantAnswer(t, w.inet, net.JoinHostPort(host4, "8080"), "")
	publish(t, w.host, h, everywhere()...)
	tests := []struct {
		name string
		from *nettest.NS
		to   string
		seen string
	}{
		{"another machine", w.inet, host4, inet4},
		{"another machine, IPv6", w.inet, host6, inet6},
		{"by the second device", w.lan, "192.0.2.1", lan4},
		{"by the second device, IPv6", w.lan, "2001:db8:192::1", lan6},
		{"by the second device, the first one's address", w.lan, host4, lan4},
		{"host", w.host, host4, host4},
		{"host, IPv6", w.host, host6, host6},
		{"host, second address", w.host, "192.0.2.1", "192.0.2.1"},
		{"host, the router's address", w.host, gate4, gate4},
		{"host, the router's address, IPv6", w.host, gate6, gate6},
		{"host, loopback", w.host, "127.0.0.1", gate4},
		{"host, another loopback address", w.host, "127.1.2.3", gate4},
		{"host, loopback, IPv6", w.host, "::1", gate6},
		{"another vassal", w.other, host4, gate4},
		{"another vassal, IPv6", w.other, host6, gate6},
		{"another vassal, the router's address", w.other, gate4, gate4},
		{"another vassal, second address", w.other, "2001:db8:192::1", gate6},
		{"the same vassal", w.pool, host4, gate4},
		{"the same vassal, IPv6", w.pool, host6, gate6},
		{"another network's vassal", w.stranger, host4, stranger4},
		{"another network's vassal, IPv6", w.stranger, host6, stranger6},
		{"another network's vassal, by its own router", w.stranger, "10.77.0.1", stranger4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantAnswer(t, tt.from, net.JoinHostPort(tt.to, "8080"), tt.seen) })
	}
	before := rules(t, w.host)
	publish(t, w.host, h, everywhere()...)
	if after := rules(t, w.host); after != before {
		t.Errorf("publishing twice changed the rules from\n%s\nto\n%s", before, after)
	}
	t.Run("no more", func(t *testing.T) {
		publish(t, w.host, h)
		for _, tt := range tests {
			wantAnswer(t, tt.from, net.JoinHostPort(tt.to, "8080"), "")
		}
		if got := rules(t, w.host); strings.Contains(got, "-j DNAT") || masquerade == "" && strings.Contains(got, "MASQUERADE") {
			t.Errorf("left behind:\n%s", got)
		}
	})
}
