package tuntap

import (
	"strings"
	"testing"

	"fiefdom/internal/ini"
)

func TestFlowsOption(t *testing.T) {
	for value, want := range map[string]uint32{"": 4096, "0": 0, "100": 100, "2147483647": 2147483647} {
		pairs := []ini.Pair{{Key: "tuntap-router", Value: "fief0 /run/fief0.sock"}}
		if value != "" {
			pairs = append(pairs, ini.Pair{Key: "tuntap-router-flows", Value: value})
		}
		networks, errs := ParseNetworks(pairs)
		if len(errs) > 0 || networks[0].FlowLimit() != want {
			t.Errorf("%q: %d flows, errors %v; want %d", value, networks[0].FlowLimit(), errs, want)
		}
	}
	for _, value := range []string{"-1", "many", "4k", "2147483648"} {
		_, errs := ParseNetworks([]ini.Pair{{Key: "tuntap-router", Value: "fief0 /run/fief0.sock"}, {Key: "tuntap-router-flows", Value: value}})
		if len(errs) == 0 || !strings.Contains(errs[0].Error(), "tuntap-router-flows = "+value) {
			t.Errorf("%q: errors %v", value, errs)
		}
	}
}
