package emperor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// A device in a kernel's bridge is in no router's network: no lease of before
// gives its vassal a name there, and no rule for it goes to a router. It has one in
// the bridge, also before it has run.
func TestABridgesDeviceIsInNoRoutersNetwork(t *testing.T) {
	e := testEmperor(t, twoNetworks()[0])
	if _, err := e.leaseAddress(e.Networks[0].Addresses[0].Masked(), "blog", func(netip.Addr) bool { return false }); err != nil {
		t.Fatal(err)
	}
	v := &member{name: "blog", config: goodVassal(t, "blog", "network = bridge:br0")}
	if on := e.presence(v, map[string]*Network{}); len(on) > 0 {
		t.Errorf("the vassal of a bridge is also at %v", on)
	}
	if all := e.deviceTargets(v, ""); len(all) > 0 {
		t.Errorf("rules for its device would be put in force in %s", all[0].network.Device)
	}
}

// What an ini wants of a declared bridge and does not get claims nothing: no
// tenant spoils the bridge for others by an address of his own.
func TestAWrongAddressOfADeclaredBridgeClaimsNothing(t *testing.T) {
	c, errs := parseBridges(t, "bridge = br0 10.100.0.1/24", "bridge = lan0")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	e := testEmperor(t)
	e.Config = c
	ask := func(name, network string) ini.Errors {
		e.vassals[name] = &member{name: name, file: iniFile{name: name, owner: owner{1000, 1000}}}
		return e.claim(e.vassals[name], &expansion{Name: name, Config: goodVassal(t, name, "network = "+network)})
	}
	for _, wrong := range []string{"bridge:br0 10.66.0.1/24", "bridge:lan0 10.66.0.1/24"} {
		if errs := ask("tenant", wrong); !errs.Failed() || !strings.Contains(fmt.Sprint(errs), "tenant.ini:3") || !strings.Contains(fmt.Sprint(errs), "emperor.ini:") {
			t.Errorf("%s: %v", wrong, errs)
		}
	}
	if errs := ask("blog", "bridge:br0 10.100.0.1/24"); errs.Failed() {
		t.Error(errs)
	}
}

// In a bridge that is the host's uplink nobody takes the gateway's address.
func TestNoVassalIsTheGatewayOfItsBridge(t *testing.T) {
	e := testEmperor(t)
	e.Config.Bridges = []KernelBridge{{Network: Network{Device: "lan0"}}}
	e.Kernel = &KernelSide{Look: func(b *KernelBridge) error {
		b.Addresses, b.Gateways, b.Uplink = []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, true
		return nil
	}}
	for a, want := range map[string]string{"192.0.2.1": "is the gateway of lan0", "192.0.2.10": "is the bridge's own", "192.0.2.20": ""} {
		_, bad := e.resolve(goodVassal(t, "blog", "network = bridge:lan0\ntuntap-device-address = "+a))
		if got := fmt.Sprint(bad); (bad == nil) != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", a, got, want)
		}
	}
}

// Who only checks an ini, and does not see the host's bridges, finds no fault
// with what a vassal of one publishes.
func TestCheckOfWhatIsPublishedInABridge(t *testing.T) {
	e := testEmperor(t)
	e.Config.Bridges = []KernelBridge{{Network: Network{Device: "lan0"}}}
	if _, bad := e.resolve(goodVassal(t, "blog", "network = bridge:lan0\npublish = 8080:80")); bad != nil {
		t.Error(bad)
	}
	if _, bad := e.resolve(goodVassal(t, "blog", "network = none\npublish = 8080:80")); bad == nil {
		t.Error("published without a network")
	}
}

// Moving the line of the option network is no change of the vassal.
func TestTheLineOfNetworkIsNoPartOfTheVassal(t *testing.T) {
	a, b := goodVassal(t, "blog", "network = none\nlimit-pids = 50"), goodVassal(t, "blog", "limit-pids = 60\nnetwork = none")
	a.File = b.File
	if !sameElse(a, b) {
		t.Error("a vassal would be started anew")
	}
	if sameElse(a, &vassal.Config{Name: a.Name, File: a.File}) {
		t.Error("another vassal is the same")
	}
}

// Declared bridges are apart from routers' networks and from each other, also for
// who only checks the ini.
func TestDeclaredBridgesAreApart(t *testing.T) {
	networks := twoNetworks() // tun0 has 10.9.0.1/24
	for lines, want := range map[string]string{
		"bridge = br0 10.100.0.1/24\nbridge = br1 10.101.0.1/24": "",
		"bridge = br0 10.9.0.129/25":                             "10.9.0.128/25 overlaps 10.9.0.0/24",
		"bridge = tun0":                                          "choose another name",
		"bridge = br0 10.100.0.1/24\nbridge = br1 10.100.0.1/16": "10.100.0.0/16 overlaps 10.100.0.0/24 of emperor.ini:3",
		"bridge = br0 10.100.0.1/24 10.100.0.2/16":               "are of one prefix",
	} {
		c, errs := parseBridges(t, strings.Split(lines, "\n")...)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		errs = c.CheckBridges(networks)
		if errs.Failed() != (want != "") || !strings.Contains(fmt.Sprint(errs), want) {
			t.Errorf("%q: %v, want %q", lines, errs, want)
		}
	}
}
