package main

import (
	"net/netip"
	"testing"

	"fiefdom/tuntap"
)

func TestAddressed(t *testing.T) {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, s := range list {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	for _, c := range []struct {
		name string
		ini  []netip.Prefix
		own  []string
		want bool
	}{
		{"the same", prefixes("10.9.0.1/16", "fd09::1/64"), []string{"10.9.0.1", "fd09::1"}, true},
		{"with a link-local one", prefixes("fd09::1/64"), []string{"fd09::1", "fe80::7"}, true},
		{"one is missing", prefixes("10.9.0.1/16", "fd09::1/64"), []string{"10.9.0.1"}, false},
		{"another of the pool", prefixes("10.9.0.1/16"), []string{"10.9.64.1"}, false},
		{"one more of the pool", prefixes("10.9.0.1/16"), []string{"10.9.0.1", "10.9.64.1"}, false},
		{"a hook's network", nil, []string{"192.168.0.1"}, true},
	} {
		var own []netip.Addr
		for _, s := range c.own {
			own = append(own, netip.MustParseAddr(s))
		}
		if got := addressed(&tuntap.NetworkOptions{Addresses: c.ini}, own); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
