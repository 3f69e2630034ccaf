package firewall

import (
	"testing"

	"pgregory.net/rapid"
)

func TestMisses(t *testing.T) {
	f := flow("10.9.0.8", "10.9.0.3", protoTCP, 5432)
	for text, want := range map[string]string{
		"deny":                               "",
		"deny any 10.9.0.0/24":               "",
		"allow 10.9.0.7 any":                 "source is 10.9.0.8",
		"allow any 10.9.0.1":                 "destination is 10.9.0.3",
		"allow :: any":                       "source is 10.9.0.8",
		"allow any any udp":                  "protocol is tcp",
		"allow any any tcp 443":              "port is 5432",
		"allow any 10.9.0.3 tcp 1-5431,6000": "port is 5432",
	} {
		if got := mustRules(t, text)[0].Misses(f); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	f.HasPorts = false
	if got := mustRules(t, "allow any any tcp 5432")[0].Misses(f); got != "ports are not known" {
		t.Errorf("%q", got)
	}
}

func TestMissesIsTheVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, f := genRule(t), genFlow(t)
		_, i := NewChain([]Rule{r}).Verdict(f)
		if why := r.Misses(f); (why == "") != (i == 0) {
			t.Fatalf("%v: %q, and the verdict is rule %d", r, why, i)
		}
	})
}

func TestExactMatchesItsFlowAndIsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFlow(t)
		if f.Src.Is4() == (f.Proto == protoICMP6) || f.Src.Is6() == (f.Proto == protoICMP) {
			f.Proto = protoTCP // nobody has the other's ICMP
		}
		r := Exact(Deny, f)
		again, err := ParseRule(r.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, i := NewChain([]Rule{again}).Verdict(f); i != 0 {
			t.Fatalf("%s does not match %+v", r, f)
		}
	})
}
