package nat

import (
	"net"
	"testing"
)

// The loopback of the host leads to the vassals of several networks at once.
func TestPublishLoopbackOfSeveralNetworks(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	serve(t, w.stranger, 8000)
	stranger := w.publishOnLoopback(t, h)
	// And one of them does without it.
	publish(t, w.host, h, stranger...)
	wantAnswer(t, w.host, "[::1]:8080", "")
	wantAnswer(t, w.host, "[::1]:8081", "fd00:77::1")
}

// What a router lets go to another network gets there, whatever the policy of
// FORWARD; nobody else gets in, and nobody's router opens a bridge.
func TestJudgedNetworksAreOpenToEachOther(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	serve(t, w.pool, 8000)
	w.host.Run(t, "iptables", "-P", "FORWARD", "DROP")
	w.host.Run(t, "ip6tables", "-P", "FORWARD", "DROP")
	h := newHost(t, w.host, "test", t.TempDir())
	nets := networks()
	nets[1].Masquerade = Auto
	for _, c := range []struct {
		from, to bool // judged
		want     [2]string
	}{
		{true, true, [2]string{stranger4, stranger6}},
		{true, false, [2]string{}},
		{false, true, [2]string{}},
	} {
		nets[0].Judged, nets[1].Judged = c.to, c.from
		apply(t, w.host, h, nets...)
		for i, a := range []string{pool4, pool6} {
			wantAnswer(t, w.stranger, net.JoinHostPort(a, "8000"), c.want[i])
			wantAnswer(t, w.lan, net.JoinHostPort(a, "8000"), "")
		}
	}
}
