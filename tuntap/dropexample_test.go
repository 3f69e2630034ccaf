package tuntap

import (
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

var testStart = time.Unix(0, 0)

func TestLastDrops(t *testing.T) {
	cfg := isolated()
	cfg.Out = lines(t, "deny any 203.0.113.0/24", "reject any any tcp 25")
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	if d := w.r.LastDrops("blog"); len(d) != 1 || len(d[0].Drops) != 0 || w.holder(blog).book.Load() != nil {
		t.Fatalf("before any drop: %+v", d)
	}
	send := func(times int, b []byte) {
		for range times {
			end.Send(t, b)
		}
	}
	send(3, udp(blog, netip.MustParseAddr("203.0.113.2"), 54))
	send(4, tcp(blog, internet, 25, tuntest.SYN))
	send(5, tcp(blog, netip.MustParseAddr("192.168.1.1"), 80, tuntest.SYN))
	send(6, udp(shop, internet, 53))
	send(7, udp(blog6, netip.MustParseAddr("ff02::1"), 5353)) // everybody's chatter: counted only
	w.dropped("blog", DropForbidden, 7)
	w.host.Send(t, tcp(internet, blog, 80, tuntest.SYN)) // passes

	d := w.r.LastDrops("blog")
	if len(d) != 1 || d[0].Network != "fief0" || len(d[0].Others) != 1 || d[0].Others[DropForbidden] != 7 {
		t.Fatalf("%+v", d)
	}
	want := map[string]DropExample{
		"emperor.ini:10": {Reason: DropRule, Count: 3, Proto: "udp", Src: blog, Dst: netip.MustParseAddr("203.0.113.2"), Port: 54},
		"emperor.ini:11": {Reason: DropRule, Count: 4, Proto: "tcp", Src: blog, Dst: internet, Port: 25},
		"isolate":        {Reason: DropIsolate, Count: 5, Proto: "tcp", Src: blog, Dst: netip.MustParseAddr("192.168.1.1"), Port: 80},
		"spoofed":        {Reason: DropSpoofed, Count: 6, Proto: "udp", Src: shop, Dst: internet, Port: 53},
	}
	for _, e := range d[0].Drops {
		name := e.Reason.String()
		if e.Rule != nil {
			name = e.Rule.File + ":" + map[int]string{10: "10", 11: "11"}[e.Rule.Line]
		}
		if e.Last.IsZero() {
			t.Errorf("%s: no time", name)
		}
		got := e
		got.Rule, got.Last = nil, want[name].Last
		if got != want[name] {
			t.Errorf("%s: %+v, want %+v", name, got, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
	e, err := w.r.Explain(Query{Vassal: "blog", Addr: internet, Proto: protoTCP, Port: 25})
	if err != nil || e.Seen == nil || e.Seen.Count != 4 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestDropBookIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(dropBook{}); size > 4<<10 {
		t.Errorf("%d bytes a peer", size)
	}
	b, pk := new(dropBook), new(packet)
	rules := make([]firewall.Rule, 3*dropKinds)
	for i := range rules {
		rules[i].Line = i
		b.keep(pk, &verdict{why: DropRule, rule: &rules[i]}, int64(i+1))
	}
	got := b.examples(new(holding), testStart)
	if len(got) != dropKinds || got[0].Rule.Line != 3*dropKinds-1 || got[dropKinds-1].Rule.Line != 2*dropKinds {
		t.Errorf("%d: %+v", len(got), got)
	}
	if n := testing.AllocsPerRun(100, func() { b.keep(pk, &verdict{why: DropRule, rule: &rules[0]}, 1000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What shards keep at once is whole, and no more than there was.
func TestDropBookOfSeveralShards(t *testing.T) {
	b := new(dropBook)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			pk, rule := new(packet), firewall.Rule{Line: k}
			for i := range 1000 {
				pk.flow.DstPort = uint16(k)
				b.keep(pk, &verdict{why: DropRule, rule: &rule}, int64(i+1))
				if i%100 == 0 {
					b.examples(new(holding), testStart)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range b.examples(new(holding), testStart) {
		if e.Count > 1000 || int(e.Port) != e.Rule.Line {
			t.Errorf("%+v", e)
		}
	}
}
