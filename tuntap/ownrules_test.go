package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/firewall"
)

// A device gets other rules while packets move: nothing of it is lost but what
// the rules say, and rules that stay go on counting.
func TestSetRules(t *testing.T) {
	w := newWorld(t, native())
	first := deviceRules(t, "out any 203.0.113.1 deny")
	end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}, Rules: first})
	passes := func(to netip.Addr, want bool) {
		t.Helper()
		before := w.stats("blog").Drops[DropRule]
		end.Send(t, udp(blog, to, 9))
		if !want {
			w.dropped("blog", DropRule, before+1)
			return
		}
		w.host.Receive(t)
	}
	one, two := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	passes(one, false)
	passes(two, true)

	if err := life.SetRules(deviceRules(t, "out any 203.0.113.2 deny", "out any 203.0.113.1 deny")); err != nil {
		t.Fatal(err)
	}
	passes(one, false)
	passes(two, false)
	s := w.stats("blog")
	if len(s.Out) != 2 || s.Out[0].Hits != 1 || s.Out[1].Hits != 2 || s.TxPackets != 4 {
		t.Errorf("counted %+v, %d packets; want 1 and 2 hits of 4", s.Out, s.TxPackets)
	}

	if err := life.SetRules(nil); err != nil {
		t.Fatal(err)
	}
	passes(one, true)
	passes(two, true)
}

// A long list comes in parts; what the router cannot take changes nothing, and
// is said.
func TestSetRulesThatAreLongOrBad(t *testing.T) {
	w := newWorld(t, native())
	end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	var many []DeviceRule
	for i := range 1000 {
		many = append(many, deviceRules(t, fmt.Sprintf("out any 203.0.%d.%d deny", i>>8, i&0xff))...)
	}
	if err := life.SetRules(many); err != nil {
		t.Fatal(err)
	}
	end.Send(t, udp(blog, netip.MustParseAddr("203.0.3.231"), 9))
	w.dropped("blog", DropRule, 1)
	if err := life.SetRules(deviceRules(t, "out any any route 198.51.100.2:4040")); err == nil || !strings.Contains(err.Error(), "has no gateway") {
		t.Errorf("a route without a gateway: %v", err)
	}
	end.Send(t, udp(blog, netip.MustParseAddr("203.0.3.231"), 9))
	w.dropped("blog", DropRule, 2)
	if err := life.Close(); err != nil {
		t.Fatal(err)
	}
	if err := life.SetRules(nil); !errors.Is(err, ErrLineLost) {
		t.Errorf("after the goodbye: %v", err)
	}
}

// Half of a list, from an emperor that was killed, changes nothing and costs the
// device nothing.
func TestHalfOfTheRulesIsNone(t *testing.T) {
	w := newWorld(t, native())
	end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}, Rules: deviceRules(t, "out any 203.0.113.1 deny")})
	if _, err := life.conn.Write(framed(kindPart, []byte(`[{"direction":`))); err != nil {
		t.Fatal(err)
	}
	life.conn.CloseWrite()
	<-life.Lost()
	w.later(3 * time.Second)
	for range 3 {
		end.Send(t, udp(blog, internet, 9))
		w.host.Receive(t)
	}
	end.Send(t, udp(blog, netip.MustParseAddr("203.0.113.1"), 9))
	w.dropped("blog", DropRule, 1)
}

// The new rules are those that the next emperor's hand-over is compared with.
func TestSetRulesBeforeASuccession(t *testing.T) {
	w := newWorld(t, native())
	k := keep(t)
	life := w.give(k, Handover{Vassal: "blog", Registered: []netip.Addr{blog}, Rules: deviceRules(t, "out any 203.0.113.1 deny")})
	other := deviceRules(t, "out any 203.0.113.2 deny")
	if err := life.SetRules(other); err != nil {
		t.Fatal(err)
	}
	p := w.holder(blog)
	w.newEmperor()
	w.give(k, Handover{Vassal: "blog", Registered: []netip.Addr{blog}, Rules: other})
	w.r.Settle()
	if w.holder(blog) != p {
		t.Error("the peer did not go on")
	}
	if got := p.own.Load().of(firewall.Out).Rules(); len(got) != 1 || got[0].Dst.String() != "203.0.113.2/32" {
		t.Errorf("its rules are %v", got)
	}
}
