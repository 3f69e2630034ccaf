package tuntap

import (
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

func TestReasonText(t *testing.T) {
	for r := DropMalformed; r < reasons; r++ {
		text, err := r.MarshalText()
		var back Reason
		if err != nil || back.UnmarshalText(text) != nil || back != r || r.String() != string(text) {
			t.Errorf("%d becomes %q and then %d: %v", r, text, back, err)
		}
	}
	if _, err := pass.MarshalText(); err == nil {
		t.Error("no reason has a text")
	}
	var r Reason
	if r.UnmarshalText([]byte("")) == nil || r.UnmarshalText([]byte("odd")) == nil {
		t.Error("an unknown reason was read")
	}
}

func TestStatsAreReadableJSON(t *testing.T) {
	in := NetworkStats{
		Name: "fief0", Drops: map[Reason]uint64{DropNoRoute: 3},
		Peers: []PeerStats{{Vassal: "blog", Addresses: []netip.Addr{blog}, TxBytes: 7}},
	}
	text, err := json.Marshal(in)
	if err != nil || !strings.Contains(string(text), `"drops":{"no-route":3}`) {
		t.Fatalf("%s: %v", text, err)
	}
	var out NetworkStats
	if err := json.Unmarshal(text, &out); err != nil || out.Drops[DropNoRoute] != 3 || out.Peers[0].Addresses[0] != blog {
		t.Errorf("%+v: %v", out, err)
	}
}

func TestUWSGIStats(t *testing.T) {
	s := NetworkStats{Peers: []PeerStats{
		{
			Addresses: []netip.Addr{blog6, blog}, UID: 33, GID: 34, PID: 35, RxPackets: 2, RxBytes: 100, TxPackets: 1, TxBytes: 50,
			Drops: map[Reason]uint64{DropRule: 2, DropFull: 3},
		},
		{Addresses: []netip.Addr{}},
		{Addresses: []netip.Addr{shop6}},
	}}
	doc := s.UWSGI(UWSGIStats{Version: "1", PID: 9})
	want := []UWSGIPeer{
		{Addr: "10.9.0.7", Addr32: 0x0700090a, UID: 33, GID: 34, PID: 35, Tx: 108, Rx: 54, Dropped: 5},
		{},
		{Addr: "fd09::8"},
	}
	for i := range want {
		if doc.Peers[i] != want[i] {
			t.Errorf("peer %d: %+v; want %+v", i, doc.Peers[i], want[i])
		}
	}
	text, err := json.Marshal(doc)
	if err != nil || !strings.Contains(string(text), `"addr_32":117442826`) || !strings.Contains(string(text), `"pid":9`) {
		t.Errorf("%s: %v", text, err)
	}
}

// The counters can be read while everything changes.
func TestSnapshotWhileItRuns(t *testing.T) {
	cfg := native()
	cfg.Out = []firewall.Rule{{Action: firewall.Deny, Dst: prefixes("203.0.113.0/24")[0], File: "emperor.ini", Line: 6}}
	w := newWorld(t, cfg)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 200 {
			for _, s := range w.r.Snapshot() {
				_ = s.Peers
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			if err := w.r.Update(cfg); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
		for range 20 {
			end.Send(t, tuntest.Echo(blog, gateway, 1, 1))
			w.host.Receive(t)
		}
		if err := life.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
