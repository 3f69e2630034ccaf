package firewall

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func TestParseRule(t *testing.T) {
	ports := func(p ...uint16) (list []PortRange) {
		for i := 0; i < len(p); i += 2 {
			list = append(list, PortRange{p[i], p[i+1]})
		}
		return list
	}
	tests := []struct {
		name, text string
		want       Rule
		str        string // of the rule; "" is text itself
	}{
		{"lone allow", "allow", Rule{Action: Allow}, ""},
		{"lone deny", "deny", Rule{Action: Deny}, ""},
		{"lone reject", "reject", Rule{Action: Reject}, ""},
		{"any any", "deny any any", Rule{Action: Deny}, "deny"},
		{"missing mask is a host", "deny 10.9.0.7 8.8.8.8", Rule{Action: Deny, Src: prefix("10.9.0.7/32"), Dst: prefix("8.8.8.8/32")}, ""},
		{"host bits are masked", "deny 10.9.3.7/16 any", Rule{Action: Deny, Src: prefix("10.9.0.0/16")}, "deny 10.9.0.0/16 any"},
		{"mask /25 does what it says", "deny any 10.9.0.200/25", Rule{Action: Deny, Dst: prefix("10.9.0.128/25")}, "deny any 10.9.0.128/25"},
		{"0.0.0.0 is any IPv4", "deny 0.0.0.0 192.168.0.1", Rule{Action: Deny, Src: prefix("0.0.0.0/0"), Dst: prefix("192.168.0.1/32")}, "deny 0.0.0.0/0 192.168.0.1"},
		{"0.0.0.0/8 too, as in uWSGI", "deny 0.0.0.0/8 0.0.0.0/32", Rule{Action: Deny, Src: prefix("0.0.0.0/0"), Dst: prefix("0.0.0.0/0")}, "deny 0.0.0.0/0 0.0.0.0/0"},
		{"what masks to zero too", "deny 1.2.3.4/0 0.1.2.3/8", Rule{Action: Deny, Src: prefix("0.0.0.0/0"), Dst: prefix("0.0.0.0/0")}, "deny 0.0.0.0/0 0.0.0.0/0"},
		{":: is any IPv6", "deny :: fd00::1", Rule{Action: Deny, Src: prefix("::/0"), Dst: prefix("fd00::1/128")}, "deny ::/0 fd00::1"},
		{"::/128 is itself", "deny ::/128 ::/8", Rule{Action: Deny, Src: prefix("::/128"), Dst: prefix("::/8")}, ""},
		{"IPv4-mapped is IPv6", "deny ::ffff:10.0.0.1 ::", Rule{Action: Deny, Src: prefix("::ffff:10.0.0.1/128"), Dst: prefix("::/0")}, "deny ::ffff:10.0.0.1 ::/0"},
		{"any with one family", "allow any fd00::/64", Rule{Action: Allow, Dst: prefix("fd00::/64")}, ""},
		{"protocol", "deny any any udp", Rule{Action: Deny, Proto: 17}, ""},
		{"protocol by number", "deny any any 47", Rule{Action: Deny, Proto: 47}, ""},
		{"number with a name", "deny any any 58", Rule{Action: Deny, Proto: 58}, "deny any any icmp6"},
		{"protocol any", "deny any 10.0.0.1 any", Rule{Action: Deny, Dst: prefix("10.0.0.1/32")}, "deny any 10.0.0.1"},
		{"icmp of IPv4", "allow any 10.0.0.1 icmp", Rule{Action: Allow, Dst: prefix("10.0.0.1/32"), Proto: 1}, ""},
		{"ports", "reject any any tcp 22,80,1000-2000", Rule{Action: Reject, Proto: 6, Ports: ports(22, 22, 80, 80, 1000, 2000)}, ""},
		{"all ports", "deny any any sctp 0-65535", Rule{Action: Deny, Proto: 132, Ports: ports(0, 65535)}, ""},
		{"tabs and many blanks", " \tallow\t10.0.0.1    any  tcp\t443 ", Rule{Action: Allow, Src: prefix("10.0.0.1/32"), Proto: 6, Ports: ports(443, 443)}, "allow 10.0.0.1 any tcp 443"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRule(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			want := tt.str
			if want == "" {
				want = tt.text
			}
			if got.String() != want {
				t.Errorf("String is %q, want %q", got, want)
			}
		})
	}
}

func TestParseRuleErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "empty rule"},
		{"blanks", " \t ", "empty rule"},
		{"typo", "dney", `unknown action "dney"; want allow, deny or reject`},
		{"capitals", "DENY 10.0.0.1 any", `unknown action "DENY"; want allow, deny or reject`},
		{"two words", "deny 10.0.0.1", `want "deny 10.0.0.1 any"`},
		{"not an address", "deny example.org any", `source: "example.org" is not an address`},
		{"short address", "deny any 10.9", `destination: "10.9" is not an address`},
		{"leading zeros", "deny 010.0.0.1 any", "is not an address"},
		{"mask past the end", "deny 10.0.0.1/33 any", `mask of "10.0.0.1/33" is not a number from 0 to 32`},
		{"mask past the end of IPv6", "deny any fd00::/129", "from 0 to 128"},
		{"negative mask", "deny 10.0.0.0/-1 any", "from 0 to 32"},
		{"signed mask", "deny 10.0.0.0/+8 any", "from 0 to 32"},
		{"empty mask", "deny 10.0.0.0/ any", "from 0 to 32"},
		{"dotted mask", "deny 10.0.0.0/255.0.0.0 any", "from 0 to 32"},
		{"two masks", "deny 10.0.0.0/8/8 any", "from 0 to 32"},
		{"zone", "deny fe80::1%eth0 any", "write fe80::1"},
		{"mixed families", "deny 10.0.0.1 fd00::1", "different families"},
		{"any IPv4 to IPv6", "deny 0.0.0.0 ::", "different families"},
		{"unknown protocol", "deny any any tpc", `unknown protocol "tpc"`},
		{"protocol 0", "deny any any 0", "from 1 to 255"},
		{"protocol 256", "deny any any 256", "from 1 to 255"},
		{"icmp of IPv6", "deny fd00::1 any icmp", "want icmp6"},
		{"icmp6 of IPv4", "deny any 10.0.0.1 icmp6", "want icmp"},
		{"ports of icmp", "deny any any icmp 80", "need tcp, udp or sctp"},
		{"ports of any", "deny any any any 80", "need tcp, udp or sctp"},
		{"port too big", "deny any any tcp 65536", "at most 65535"},
		{"empty item", "deny any any tcp 22,,80", `"" in ports "22,,80"`},
		{"open range", "deny any any tcp 80-", `"80-" in ports`},
		{"range backwards", "deny any any tcp 90-80", "want 80-90"},
		{"blank in ports", "deny any any tcp 22, 80", `unexpected "80"`},
		{"newline", "allow\n10.0.0.1 any", "unknown action"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseRule(tt.text)
			if err == nil {
				t.Fatalf("parsed as %+v", r)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if !reflect.DeepEqual(r, Rule{}) {
				t.Errorf("half a rule beside the error: %+v", r)
			}
		})
	}
}

func TestParseDeviceRule(t *testing.T) {
	tests := []struct {
		name, text string
		dir        Direction
		want       Rule
		err        string
	}{
		{name: "out", text: "out 10.9.0.7/24 172.16.0.0/12 deny", dir: Out, want: Rule{Action: Deny, Src: prefix("10.9.0.0/24"), Dst: prefix("172.16.0.0/12")}},
		{name: "in", text: "in 0.0.0.0 10.9.0.7  allow", dir: In, want: Rule{Action: Allow, Src: prefix("0.0.0.0/0"), Dst: prefix("10.9.0.7/32")}},
		{name: "mask is a mask", text: "in 10.0.0.0/8 any reject", dir: In, want: Rule{Action: Reject, Src: prefix("10.0.0.0/8")}},
		{name: "direction", text: "up any any deny", err: `unknown direction "up"; want in or out`},
		{name: "action", text: "in any any dney", err: `unknown action "dney"`},
		{name: "route", text: "out any any route 10.0.0.1:5000", err: `unknown action "route"`},
		{name: "gateway", text: "out any any gateway 10.0.0.1:5000", err: `unknown action "gateway"`},
		{name: "target of deny", text: "out any any deny 10.0.0.1:5000", err: "has no target"},
		{name: "too short", text: "out any any", err: "want in|out SRC DST ACTION"},
		{name: "mixed", text: "out 10.0.0.1 fd00::1 deny", err: "different families"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, r, err := ParseDeviceRule(tt.text)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || dir != tt.dir || !reflect.DeepEqual(r, tt.want) {
				t.Errorf("got %v %+v %v, want %v %+v", dir, r, err, tt.dir, tt.want)
			}
		})
	}
}

func TestRuleJSON(t *testing.T) {
	for _, text := range []string{"allow", "deny 10.9.0.0/16 any", "reject :: fd00::1 tcp 22,80-90"} {
		r, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		r.File, r.Line = "emperor.ini", 6
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := `"action":"` + r.Action.String() + `"`; !strings.Contains(string(b), want) {
			t.Errorf("%s does not hold %s", b, want)
		}
		var back Rule
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s came back as %+v, %v", b, back, err)
		}
	}
	var both struct{ D Direction }
	if err := json.Unmarshal([]byte(`{"D":"in"}`), &both); err != nil || both.D != In {
		t.Errorf("direction: %v %v", both.D, err)
	}
	var r Rule
	for _, bad := range []string{`{"action":"dney"}`, `{"action":""}`, `{"action":1}`} {
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s was read as %v", bad, r)
		}
	}
	if b, err := json.Marshal(Rule{Action: 9}); err == nil {
		t.Errorf("action 9 was written as %s", b)
	}
	if b, err := json.Marshal(Direction(9)); err == nil {
		t.Errorf("direction 9 was written as %s", b)
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"allow", "deny 10.9.0.7 any", "reject :: fd00::/64 tcp 22,80-90", "deny 0.0.0.0/8 any 58", "deny ::ffff:1.2.3.4/100 ::/128"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, err := ParseDeviceRule(s); err == nil && len(words(s)) != 4 {
			t.Fatalf("device rule %q has %d words", s, len(words(s)))
		}
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		back, err := ParseRule(r.String())
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%q is %+v; as %q it is %+v, %v", s, r, r.String(), back, err)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Rule
		if err := json.Unmarshal(b, &decoded); err != nil || !reflect.DeepEqual(decoded, r) {
			t.Fatalf("%s came back as %+v, %v", b, decoded, err)
		}
		NewChain([]Rule{r})
	})
}
