package emperor

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

func twoNetworks() []Network {
	return []Network{
		{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/24"), prefix("fd09::1/64")}, Resolv: "/run/resolv-tun0"},
		{Device: "tun1", Socket: "/run/tun1", Addresses: []netip.Prefix{prefix("10.8.0.1/24")}},
		{Device: "uwsgi0", Socket: "/run/uwsgi0"},
	}
}

func TestResolve(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want string // links: device network addresses gateways
		keep bool
	}{
		"no device":         {"", "", false},
		"device only":       {"tuntap-device = u0", "u0   []", false},
		"uWSGI's":           {"tuntap-device = u0 /run/uwsgi0", "u0 uwsgi0  []", false},
		"declared":          {"tuntap-device-address = 10.9.0.7", "eth0 tun0 10.9.0.7/24 [10.9.0.1]", true},
		"declared, IPv6":    {"tuntap-device-address = fd09::7", "eth0 tun0 fd09::7/64 [fd09::1]", true},
		"both families":     {"tuntap-device-address = 10.9.0.7 fd09::7", "eth0 tun0 10.9.0.7/24 fd09::7/64 [10.9.0.1 fd09::1]", true},
		"by its address":    {"tuntap-device-address = 10.8.0.7", "eth0 tun1 10.8.0.7/24 [10.8.0.1]", true},
		"by its socket":     {"tuntap-device = eth1 /run/tun1\ntuntap-device-address = 10.8.0.7", "eth1 tun1 10.8.0.7/24 [10.8.0.1]", true},
		"own gateway":       {"tuntap-device-address = 10.9.0.7\ntuntap-device-gateway = 10.9.0.9", "eth0 tun0 10.9.0.7/24 [10.9.0.9]", true},
		"two networks":      {"tuntap-device = a\ntuntap-device-address = 10.9.0.7\ntuntap-device = b\ntuntap-device-address = 10.8.0.7", "a tun0 10.9.0.7/24 [10.9.0.1]; b tun1 10.8.0.7/24 [10.8.0.1]", true},
		"a foreign router":  {"tuntap-device = u0 /run/none", "u0   []", false},
		"foreign, native":   {"tuntap-device = u0 /run/none\ntuntap-device-address = 10.9.0.7 fd0a::7\ntuntap-device-gateway = 192.0.2.1", "u0  10.9.0.7/32 fd0a::7/128 [192.0.2.1]", true},
		"native and hooked": {"tuntap-device = a\ntuntap-device-address = 10.9.0.7\ntuntap-device = b /run/uwsgi0", "a tun0 10.9.0.7/24 [10.9.0.1]; b uwsgi0  []", false},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			r, bad := e.resolve(goodVassal(t, "blog", tc.text))
			if bad != nil {
				t.Fatal(*bad)
			}
			var links []string
			for _, l := range r.links {
				var addrs []string
				for _, a := range l.Addresses {
					addrs = append(addrs, a.String())
				}
				links = append(links, fmt.Sprintf("%s %s %s %v", l.Device, l.Network, strings.Join(addrs, " "), l.Gateways))
				if l.MTU != defaultMTU {
					t.Errorf("mtu %d", l.MTU)
				}
			}
			if got := strings.Join(links, "; "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if r.keep != tc.keep || r.net != (len(r.links) > 0) {
				t.Errorf("keep %v, net %v", r.keep, r.net)
			}
		})
	}
}

// With and without a device, what an ini asks for comes beside what the
// emperor's says of all.
func TestResolveIsolation(t *testing.T) {
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	for name, tc := range map[string]struct {
		text       string
		change     func(*Config)
		namespaces uintptr
		net        bool
		check      func(*vassal.Plan) bool
	}{
		"unshare":        {"unshare = ipc,uts", func(*Config) {}, unix.CLONE_NEWIPC | unix.CLONE_NEWUTS, false, nil},
		"unshare net":    {"unshare = net", func(*Config) {}, 0, true, nil},
		"with use-clone": {"unshare2 = pid,files", func(c *Config) { c.Namespaces = unix.CLONE_NEWNS }, unix.CLONE_NEWPID | unix.CLONE_NEWNS, false, func(p *vassal.Plan) bool { return p.Reaper && p.Proc && p.Mounts }},
		"namespace":      {"namespace = /srv/root:web", func(*Config) {}, all, false, func(p *vassal.Plan) bool { return p.Reaper && p.Isolation.Hostname == "web" }},
		"namespace-net":  {"ns = /srv/root\nns-net = true", func(*Config) {}, all, true, nil},
		"user":           {"unshare = user", func(*Config) {}, unix.CLONE_NEWUSER, false, func(p *vassal.Plan) bool { return p.NoNewPrivs && !p.OwnIDs && !p.Bounded }},
		"owner's user":   {"", func(c *Config) { c.Namespaces, c.Tyrant = unix.CLONE_NEWUSER, true }, all | unix.CLONE_NEWUSER, false, func(p *vassal.Plan) bool { return p.NoNewPrivs && p.OwnIDs && p.Bounded }},
		"limits":         {"max-fd = 9", func(*Config) {}, 0, false, func(p *vassal.Plan) bool { return p.Limits.Files == 9 }},
		"setns":          {"setns = /run/ns", func(c *Config) { c.Namespaces = unix.CLONE_NEWNET }, 0, false, func(p *vassal.Plan) bool { return p.Reaper }},
		"emperor-cap":    {"cap = net_raw", func(c *Config) { c.Bound, c.BoundSet = []string{"net_raw"}, true }, 0, false, func(p *vassal.Plan) bool { return p.BoundSet }},
		"as-vassal": {"exec-as-root = b", func(c *Config) {
			c.Hooks = []vassal.Hook{{Phase: vassal.AsVassal, Args: "a"}, {Phase: vassal.AsRoot, Args: "the emperor's"}}
		}, 0, false, func(p *vassal.Plan) bool {
			return len(p.Hooks) == 2 && p.Hooks[0].Phase == vassal.AsVassal && p.Hooks[1].Args == "b"
		}},
		"as-vassal of an owner": {"", func(c *Config) { c.Tyrant, c.Hooks = true, []vassal.Hook{{Phase: vassal.AsVassal, Args: "a"}} }, all, false, func(p *vassal.Plan) bool {
			return len(p.Hooks) == 1 && p.Hooks[0].Phase == vassal.AsUser
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			tc.change(e.Config)
			r, bad := e.resolve(goodVassal(t, "blog", tc.text))
			if bad != nil {
				t.Fatal(*bad)
			}
			if r.namespaces != tc.namespaces || r.net != tc.net {
				t.Errorf("namespaces %#x, net %v", r.namespaces, r.net)
			}
			if root := tc.namespaces == unix.CLONE_NEWUSER; root != (len(stillRoot(goodVassal(t, "blog", tc.text), r)) > 0) {
				t.Errorf("warned of its root: %v", !root)
			}
			if tc.check != nil && !tc.check(&r.plan) {
				t.Errorf("plan %+v", r.plan)
			}
		})
	}
}

func TestResolveIsolationThatFails(t *testing.T) {
	for name, tc := range map[string]struct {
		text   string
		change func(*Config)
		line   int
		want   string
	}{
		"pivot_root on the host": {"pivot_root = /new /new/old", func(*Config) {}, 3, "write unshare = fs too"},
		"setns with a device":    {"setns = /run/ns\ntuntap-device = u0", func(*Config) {}, 4, "no device of its own"},
		"setns in a user ns":     {"setns = /run/ns\nunshare = user", func(*Config) {}, 3, "leave user out"},
		"setns and a root":       {"setns = /run/ns\nnamespace = /srv/root", func(*Config) {}, 3, "leave out namespace or setns"},
		"setns and pivot_root":   {"setns = /run/ns\nunshare = fs\npivot_root = /new /new/old", func(*Config) {}, 3, "leave out pivot_root or setns"},
		"hooks' device":          {"tuntap-device = u0 /run/uwsgi0", func(c *Config) { c.Namespaces = unix.CLONE_NEWUSER }, 3, "write tuntap-device-address"},
		"cap beyond the bound":   {"cap = net_raw", func(c *Config) { c.BoundSet = true }, 3, "not in emperor-cap"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			tc.change(e.Config)
			_, bad := e.resolve(goodVassal(t, "blog", tc.text))
			if bad == nil || bad.Pos.Line != tc.line || !strings.Contains(bad.Message, tc.want) {
				t.Errorf("got %v, want line %d, %q", bad, tc.line, tc.want)
			}
		})
	}
}

func TestResolveErrorsHaveTheirPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int
		want string
	}{
		"foreign pool":    {"tuntap-device = u0 /run/none\ntuntap-device-address = auto", 3, "socket /run/none belongs to no tuntap-router of this emperor (/run/tun0 /run/tun1 /run/uwsgi0)"},
		"foreign gateway": {"tuntap-device = u0 /run/none\ntuntap-device-address = 10.9.0.7\ntuntap-device-gateway = fd09::1", 3, "gateway fd09::1 of device u0: the device has no address of its family"},
		"foreign MTU":     {"tuntap-device = u0 /run/none\ntuntap-device-mtu = 9000", 3, "MTU 9000 is more"},
		"foreign rule":    {"tuntap-device = u0 /run/none\ntuntap-device-rule = out any any reject", 3, "knows allow and deny, not reject"},
		"foreign":         {"tuntap-device-address = 192.0.2.7", 3, "no network of this emperor has the address"},
		"outside":         {"tuntap-device = u0 /run/tun0\ntuntap-device-address = 10.8.0.7", 3, "address 10.8.0.7 is outside the network of tun0"},
		"router's":        {"tuntap-device-address = 10.9.0.1", 3, "10.9.0.1 is the router's own"},
		"network's":       {"tuntap-device-address = 10.9.0.0", 3, "network's own or its broadcast"},
		"broadcast":       {"tuntap-device-address = 10.9.0.255", 3, "network's own or its broadcast"},
		"IPv6 anycast":    {"tuntap-device-address = fd09::", 3, "network's own"},
		"which network":   {"tuntap-device-address = auto", 3, "several networks fit device eth0"},
		"no pool":         {"tuntap-device = u0 /run/uwsgi0\ntuntap-device-address = auto", 3, "has no pool"},
		"gateway":         {"tuntap-device-address = 10.9.0.7\ntuntap-device-gateway = 192.0.2.1", 3, "gateway 192.0.2.1 is in no network"},
		"second device":   {"tuntap-device = u0\ntuntap-device = u1 /run/none\ntuntap-device-mtu = 9000", 4, "MTU 9000 is more"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			c := goodVassal(t, "blog", tc.text)
			_, bad := e.resolve(c)
			if bad == nil || !strings.Contains(bad.Message, tc.want) || bad.Pos.Line != tc.line || bad.Pos.File != c.File {
				t.Errorf("got %v, want line %d, %q", bad, tc.line, tc.want)
			}
		})
	}
}

func TestResolveForeignRouters(t *testing.T) {
	const text = "tuntap-device = u0 run/socket\nuid = 2001\ngid = 2002\n"
	resolve := func(e *Emperor, text string) (*resolved, *vassal.Config) {
		t.Helper()
		c := goodVassal(t, "blog", text)
		r, bad := e.resolve(c)
		if bad != nil {
			t.Fatal(*bad)
		}
		return r, c
	}
	plain, c := resolve(testEmperor(t, twoNetworks()...), text)
	l := plain.links[0]
	if !l.Foreign || l.Network != "" || l.Socket != filepath.Join(filepath.Dir(c.File), "run/socket") || l.Greeting != (vassal.Greeting{}) {
		t.Errorf("%+v", l)
	}
	told, _ := resolve(testEmperor(t), text+"tuntap-use-credentials = true")
	if want := (vassal.Greeting{Credentials: true, UID: 2001, GID: 2002}); told.links[0].Greeting != want || told.key == plain.key {
		t.Errorf("%+v, key %s", told.links[0], told.key)
	}
	e := testEmperor(t, twoNetworks()...)
	e.Config.Tyrant = true
	if _, bad := e.resolve(goodVassal(t, "blog", text)); bad == nil || !strings.Contains(bad.Message, "in tyrant mode a device joins no other") {
		t.Errorf("in tyrant mode: %v", bad)
	}
	e = testEmperor(t)
	e.BridgeUID = 2001
	if _, bad := e.resolve(goodVassal(t, "blog", text)); bad == nil || !strings.Contains(bad.Message, "uid 2001 is that of the bridges") {
		t.Errorf("with the bridges' uid: %v", bad)
	}
}

func TestResolveLeases(t *testing.T) {
	networks := twoNetworks()
	networks[0].AttachAll = true
	e := testEmperor(t, networks...)
	if errs := e.claims.Add(goodVassal(t, "shop", "tuntap-device-address = 10.9.0.7")); len(errs) > 0 {
		t.Fatal(errs)
	}
	seen := map[string]bool{}
	for i := range 100 {
		c := goodVassal(t, fmt.Sprint("v", i), "")
		r, bad := e.resolve(c)
		if bad != nil {
			t.Fatal(*bad)
		}
		l := r.links[0]
		if l.Device != vassal.DefaultDevice || len(l.Addresses) != 2 || len(l.Gateways) != 2 {
			t.Fatalf("%+v", l)
		}
		for _, a := range l.Addresses {
			if s := a.Addr().String(); seen[s] || s == "10.9.0.7" || s == "10.9.0.1" || s == "fd09::1" {
				t.Fatalf("%s has %s", c.Name, s)
			} else {
				seen[s] = true
			}
		}
		again, bad := e.resolve(c)
		if bad != nil || again.key != r.key || !reflect.DeepEqual(again.links, r.links) {
			t.Fatalf("%v: asked again: %+v, then %+v", bad, r.links, again.links)
		}
	}
	if !e.Leases.dirty {
		t.Error("leased, and nothing to save")
	}
}

func TestResolvePlan(t *testing.T) {
	t.Setenv("FIEFDOM_TEST_SECRET", "1")
	networks := twoNetworks()
	plan := func(t *testing.T, e *Emperor, text string) vassal.Plan {
		t.Helper()
		r, bad := e.resolve(goodVassal(t, "blog", text))
		if bad != nil {
			t.Fatal(*bad)
		}
		return r.plan
	}
	t.Run("native", func(t *testing.T) {
		p := plan(t, testEmperor(t, networks...), "tuntap-device-address = 10.9.0.7\nenv = A=1")
		if p.UID < firstUID || p.UID > lastUID || p.GID != p.UID || !p.SetGroups || len(p.Groups) > 0 || !p.Bounded || !p.CleanEnv || !p.Mounts {
			t.Errorf("%+v", p)
		}
		if p.Resolv != "/run/resolv-tun0" || p.Umask != 0o22 || p.LogUID != -1 || !p.Reaper || !p.Proc || p.Confined == nil || p.Confined.Level != vassal.LevelDefault {
			t.Errorf("%+v", p)
		}
		if env := strings.Join(p.Env, " "); strings.Contains(env, "SECRET") || !strings.HasPrefix(env, "PATH=") || !strings.HasSuffix(env, "A=1") {
			t.Errorf("env %q", env)
		}
	})
	t.Run("a uid of its own", func(t *testing.T) {
		p := plan(t, testEmperor(t, networks...), "tuntap-device-address = 10.9.0.7\nuid = 1234\nadd-gid = 77\ncap = net_raw\numask = 077")
		if p.UID != 1234 || p.GID != 1234 || !reflect.DeepEqual(p.Groups, []int{77}) || !p.KeepCaps || p.Caps[0] != "net_raw" || p.Umask != 0o77 {
			t.Errorf("%+v", p)
		}
	})
	t.Run("gid wins", func(t *testing.T) {
		if p := plan(t, testEmperor(t), "uid = nobody\ngid = 7"); p.UID != 65534 || p.GID != 7 || !p.SetGroups {
			t.Errorf("%+v", p)
		}
	})
	t.Run("uWSGI's way", func(t *testing.T) {
		p := plan(t, testEmperor(t, networks...), "tuntap-device = u0 /run/uwsgi0")
		if p.UID != -1 || p.GID != -1 || p.SetGroups || p.Bounded || p.CleanEnv || len(p.Env) > 0 {
			t.Errorf("%+v", p)
		}
	})
	t.Run("namespaces", func(t *testing.T) {
		e := testEmperor(t)
		e.Config.Namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS
		r, bad := e.resolve(goodVassal(t, "blog", ""))
		if bad != nil || !r.net || r.namespaces != unix.CLONE_NEWPID|unix.CLONE_NEWNS || !r.plan.Reaper || !r.plan.Proc || !r.plan.Mounts {
			t.Errorf("%v, %+v", bad, r)
		}
	})
	t.Run("tyrant", func(t *testing.T) {
		e := testEmperor(t)
		e.Config.Tyrant = true
		c := goodVassal(t, "blog", "logto = /tmp/log")
		if errs := tyrant(c, owner{1500, 1600}); len(errs) > 0 {
			t.Fatal(errs)
		}
		r, bad := e.resolve(c)
		if bad != nil || r.plan.UID != 1500 || r.plan.GID != 1600 || r.plan.LogUID != 1500 || len(r.plan.Groups) > 0 || !r.plan.SetGroups || !r.plan.Bounded {
			t.Errorf("%v, %+v", bad, r.plan)
		}
	})
}

// A mount namespace brings resolvers that the vassal can reach, also where
// hooks configure its device.
func TestResolversComeWithMounts(t *testing.T) {
	hooked := Network{Device: "uwsgi0", Socket: "/run/uwsgi0", Resolv: "/run/resolv-uwsgi0"}
	for name, tc := range map[string]struct {
		namespaces uintptr
		want       string
	}{"mounts": {unix.CLONE_NEWNS, "/run/resolv-uwsgi0"}, "none": {0, ""}} {
		e := testEmperor(t, hooked)
		e.Config.Namespaces = tc.namespaces
		r, bad := e.resolve(goodVassal(t, "blog", "tuntap-device = u0 /run/uwsgi0"))
		if bad != nil {
			t.Fatal(*bad)
		}
		if r.plan.Resolv != tc.want || r.plan.Mounts != (tc.namespaces != 0) {
			t.Errorf("%s: resolv.conf %q, mounts %v", name, r.plan.Resolv, r.plan.Mounts)
		}
	}
}

// Two inis of one batch: what is declared is claimed before anything is leased.
func TestDeclaredBeforeLeased(t *testing.T) {
	networks := []Network{{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/30")}, AttachAll: true}}
	e := testEmperor(t, networks...)
	batch := func(all ...*vassal.Config) {
		var got []expansion
		for _, c := range all {
			f := iniFile{name: c.Name, path: c.File}
			e.newMember(f)
			e.vassals[c.Name].state = Running // so that nothing is launched
			got = append(got, expansion{Name: c.Name, Config: c, file: f})
		}
		e.expanded(got)
	}
	batch(goodVassal(t, "auto", ""), goodVassal(t, "declared", "tuntap-device-address = 10.9.0.2"))
	if err := e.vassals["declared"].err; err != "" {
		t.Errorf("declared: %s", err)
	}
	if err := e.vassals["auto"].err; !strings.Contains(err, "no address is left") {
		t.Errorf("auto: %q", err)
	}
}

// A neighbour's ini cannot take an address away that somebody has on lease.
func TestLeaseIsSafeFromNeighbours(t *testing.T) {
	e := testEmperor(t, Network{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/24")}, AttachAll: true})
	a := goodVassal(t, "a", "")
	e.newMember(iniFile{name: "a", path: a.File})
	if _, bad := e.resolve(a); bad != nil {
		t.Fatal(*bad)
	}
	e.vassals["a"].config = a
	leased := e.Leases.file.Addresses[prefix("10.9.0.0/24")]["a"]
	thief := goodVassal(t, "b", "tuntap-device-address = "+leased.String())
	e.newMember(iniFile{name: "b", path: thief.File})
	errs := e.claim(e.vassals["b"], &expansion{Config: thief})
	if !errs.Failed() || !strings.Contains(errs.Error(), `leased to vassal "a"`) || errs[0].Pos.Line != 3 {
		t.Errorf("%v", errs)
	}
	// Once a declares an address itself, or is gone, its lease is free.
	a.Devices = goodVassal(t, "a", "tuntap-device-address = 10.9.0.250").Devices
	if errs := e.claim(e.vassals["b"], &expansion{Config: thief}); errs.Failed() {
		t.Errorf("%v", errs)
	}
}
