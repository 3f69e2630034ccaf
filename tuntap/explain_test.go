package tuntap

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"fiefdom/firewall"
)

// lines are an emperor's firewall rules as they would be read from its ini,
// from line 10 on.
func lines(t testing.TB, texts ...string) (rules []firewall.Rule) {
	t.Helper()
	for i, text := range texts {
		r, err := firewall.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		r.File, r.Line = "emperor.ini", 10+i
		rules = append(rules, r)
	}
	return rules
}

func TestExplain(t *testing.T) {
	cfg := isolated()
	cfg.File, cfg.Line = "emperor.ini", 3
	cfg.Out = lines(t, "allow any 10.9.0.1", "allow any any tcp 443", "deny any 10.9.0.0/24")
	cfg.In = lines(t, "reject any any tcp 23")
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	end, _ := w.handOver(Handover{Vassal: "shop", May: []netip.Prefix{single(shop)}, Rules: deviceRules(t, "in 198.51.100.0/24 any deny")})
	w.register(end, shop)
	nobodys := netip.MustParseAddr("10.9.3.3")
	for _, c := range []struct {
		name                  string
		query                 Query
		verdict, reason, rule string
		change                string // all of them; empty: advice
	}{
		{
			"a rule",
			Query{Addr: shop, Proto: protoTCP, Port: 5432},
			"deny", "rule", "emperor.ini:12",
			"before emperor.ini:12 tuntap-router-firewall-out = allow 10.9.0.7 10.9.0.8 tcp 5432",
		},
		{
			"an earlier rule",
			Query{Addr: shop, Proto: protoTCP, Port: 443},
			"allow", "", "emperor.ini:11",
			"before emperor.ini:11 tuntap-router-firewall-out = deny 10.9.0.7 10.9.0.8 tcp 443",
		},
		{
			"isolate",
			Query{Addr: netip.MustParseAddr("192.168.1.1"), Proto: protoTCP, Port: 80},
			"deny", "isolate", "",
			"before emperor.ini:10 tuntap-router-firewall-out = allow 10.9.0.7 192.168.1.1 tcp 80",
		},
		{
			"the internet",
			Query{Addr: internet, Proto: protoUDP, Port: 53},
			"allow", "", "",
			"before emperor.ini:10 tuntap-router-firewall-out = deny 10.9.0.7 198.51.100.7 udp 53",
		},
		{
			"another's own rules",
			Query{Vassal: "shop", Direction: firewall.In, Addr: internet, Proto: protoTCP, Port: 80},
			"deny", "rule", "blog.ini:1",
			"before blog.ini:1 tuntap-device-rule = in 198.51.100.7 10.9.0.8 allow",
		},
		{
			"rejected, then denied",
			Query{Vassal: "shop", Direction: firewall.In, Addr: internet, Proto: protoTCP, Port: 23},
			"reject", "rule", "emperor.ini:10",
			"before emperor.ini:10 tuntap-router-firewall-in = allow 198.51.100.7 10.9.0.8 tcp 23, before blog.ini:1 tuntap-device-rule = in 198.51.100.7 10.9.0.8 allow",
		},
		{
			"in from a vassal",
			Query{Vassal: "shop", Direction: firewall.In, Addr: blog, Proto: protoTCP, Port: 23},
			"deny", "rule", "emperor.ini:12",
			"before emperor.ini:12 tuntap-router-firewall-out = allow 10.9.0.7 10.9.0.8 tcp 23, before emperor.ini:10 tuntap-router-firewall-in = allow 10.9.0.7 10.9.0.8 tcp 23",
		},
		{"in from the internet", Query{Direction: firewall.In, Addr: internet, Proto: protoICMP}, "allow", "", "", "before emperor.ini:10 tuntap-router-firewall-in = deny 198.51.100.7 10.9.0.7 icmp"},
		{"nobody has it", Query{Addr: nobodys, Proto: protoTCP, Port: 443}, "reject", "no-route", "", ""},
		{"spoofed", Query{Addr: internet, Proto: protoTCP, Port: 443, From: internet}, "deny", "spoofed", "", ""},
		{"another's address", Query{Addr: internet, Proto: protoTCP, Port: 443, From: shop}, "deny", "spoofed", "", ""},
		{"the router", Query{Addr: gateway, Proto: protoICMP}, "allow", "", "emperor.ini:10", "before emperor.ini:10"},
		{"no IPv6 address", Query{Addr: shop6, Proto: protoTCP, Port: 1}, "error", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.query.Vassal == "" {
				c.query.Vassal = "blog"
			}
			e, err := w.r.Explain(c.query)
			if c.verdict == "error" {
				if err == nil {
					t.Fatalf("%+v", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rule := ""
			if e.Rule != nil {
				rule = fmt.Sprintf("%s:%d", e.Rule.File, e.Rule.Line)
			}
			if e.Verdict != c.verdict || c.reason != "" && e.Reason != c.reason || rule != c.rule {
				t.Errorf("%s %s %s, want %s %s %s; %+v", e.Verdict, e.Reason, rule, c.verdict, c.reason, c.rule, e.Steps)
			}
			if got := told(e.Changes); c.change == "" && e.Advice == "" || !strings.HasPrefix(got, c.change) || c.change == "" && got != "" {
				t.Errorf("change %q, advice %q, want %q", got, e.Advice, c.change)
			}
		})
	}
}

func told(changes []Change) string {
	var list []string
	for _, c := range changes {
		where := "after"
		if c.Before {
			where = "before"
		}
		list = append(list, fmt.Sprintf("%s %s:%d %s", where, c.File, c.Line, c.Text))
	}
	return strings.Join(list, ", ")
}

func TestExplainTellsEachRule(t *testing.T) {
	cfg := native()
	cfg.Out = lines(t, "allow any 10.9.0.1", "allow any any tcp 443", "deny any 10.9.0.0/24", "allow")
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	e, err := w.r.Explain(Query{Vassal: "blog", Addr: shop, Proto: protoTCP, Port: 5432})
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Name: "source", Result: "pass", Why: "10.9.0.7 is blog's", About: "blog"},
		{Name: "chain out", Result: "deny", Rules: []Considered{
			{Number: 1, Why: "destination is 10.9.0.8", RulePlace: RulePlace{"allow any 10.9.0.1", "emperor.ini", 10}},
			{Number: 2, Why: "port is 5432", RulePlace: RulePlace{"allow any any tcp 443", "emperor.ini", 11}},
			{Number: 3, Hit: true, RulePlace: RulePlace{"deny any 10.9.0.0/24", "emperor.ini", 12}},
		}},
	}
	if !reflect.DeepEqual(e.Steps, want) {
		t.Errorf("%+v\nwant %+v", e.Steps, want)
	}
}

// A vassal that has not sent anything yet, and one that may have any address.
func TestExplainBeforeRegistration(t *testing.T) {
	w := newWorld(t, native())
	w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	w.handOver(Handover{Vassal: "shop"})
	for _, q := range []Query{
		{Vassal: "blog", Addr: internet, Proto: protoTCP, Port: 80},
		{Vassal: "shop", Addr: internet, Proto: protoTCP, Port: 80, From: shop},
	} {
		e, err := w.r.Explain(q)
		if err != nil || e.Verdict != "allow" || e.Steps[0].Name != "source" || e.Steps[0].Why == "" {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if _, err := w.r.Explain(Query{Vassal: "shop", Addr: internet, Proto: protoTCP, Port: 80}); err == nil {
		t.Error("it knows an address of a vassal that has none")
	}
	if _, err := w.r.Explain(Query{Vassal: "none", Addr: internet, Proto: protoTCP, Port: 80}); err == nil {
		t.Error("it knows a vassal that is not there")
	}
	if s := w.stats("blog"); len(s.Addresses) != 0 {
		t.Errorf("a question registered %v", s.Addresses)
	}
}

// Where no rule is written yet, the line goes below the network's own.
func TestExplainWithoutRules(t *testing.T) {
	cfg := native()
	cfg.File, cfg.Line = "emperor.ini", 3
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	for dir, want := range map[firewall.Direction]string{
		firewall.In:  "after emperor.ini:3 tuntap-router-firewall-in = deny 198.51.100.7 10.9.0.7 icmp",
		firewall.Out: "after emperor.ini:3 tuntap-router-firewall-out = deny 10.9.0.7 198.51.100.7 icmp",
	} {
		e, err := w.r.Explain(Query{Vassal: "blog", Direction: dir, Addr: internet, Proto: protoICMP})
		if err != nil || told(e.Changes) != want {
			t.Errorf("%v, %v", e, err)
		}
	}
	// The rules of the other chain are no place for it.
	cfg.In = lines(t, "deny any any tcp 23", "allow")
	if err := w.r.Update(cfg); err != nil {
		t.Fatal(err)
	}
	w.vassal("shop", shop)
	e, err := w.r.Explain(Query{Vassal: "blog", Addr: shop, Proto: protoTCP, Port: 80})
	if want := "after emperor.ini:3 tuntap-router-firewall-out = deny 10.9.0.7 10.9.0.8 tcp 80"; err != nil || told(e.Changes) != want {
		t.Errorf("%+v, %v", e, err)
	}
}
