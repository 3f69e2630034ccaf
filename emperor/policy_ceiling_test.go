package emperor

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fiefdom/vassal"
)

// effective is what a vassal would start with, whatever its ini's words were.
type effective struct {
	*resolved
	name   string
	leased func(netip.Addr) bool      // addresses of the pool that the ini did not choose
	all    func(kind uintptr) uintptr // namespaces of the vassal's own, of those kinds
}

// networks are where its devices are.
func (e *effective) networks() (all []string) {
	for _, l := range e.links {
		switch {
		case l.Bridge != "":
			all = append(all, "bridge:"+l.Bridge)
		case l.Network != "":
			all = append(all, l.Network)
		}
	}
	return all
}

// chosen are its addresses that are nobody's lease.
func (e *effective) chosen() (all []netip.Addr) {
	for _, l := range e.links {
		for _, a := range l.Addresses {
			if !e.leased(a.Addr()) {
				all = append(all, a.Addr())
			}
		}
	}
	return all
}

// reached says whether every port of the host's that leads to the vassal is allowed.
func (e *effective) reached(allowed func(host netip.Addr, port int, udp bool, from []netip.Prefix) bool) bool {
	for _, p := range e.resolved.published {
		for port := int(p.First); port <= int(p.Last); port++ {
			if !allowed(p.Host, port, p.Proto == unix.IPPROTO_UDP, p.From) {
				return false
			}
		}
	}
	return true
}

// ports is how many ports of the host's lead to the vassal, those of one number and
// protocol once.
func (e *effective) ports() int {
	seen := map[string]bool{}
	e.reached(func(_ netip.Addr, port int, udp bool, _ []netip.Prefix) bool {
		seen[fmt.Sprint(port, udp)] = true
		return true
	})
	return len(seen)
}

// places are those of its files.
func (e *effective) places() *vassal.Confined {
	if k := e.plan.Confined; k != nil {
		return k
	}
	return new(vassal.Confined)
}

// listens says whether the kernel lets the app listen on nothing but these ports.
func (e *effective) listens(ports ...uint16) bool {
	k := e.places()
	return k.Counted && only(k.Ports, ports...)
}

// under says whether a path is below a folder, as a kernel that follows no link walks.
func under(path, folder string) bool {
	return path == filepath.Clean(path) && strings.HasPrefix(path+"/", folder+"/")
}

func only[T comparable](got []T, allowed ...T) bool {
	return !slices.ContainsFunc(got, func(v T) bool { return !slices.Contains(allowed, v) })
}

func atMost(got, most int64) bool { return got > 0 && got <= most }

// inside says whether all of from is inside of a prefix.
func inside(from []netip.Prefix, most string) bool {
	p := netip.MustParsePrefix(most)
	return len(from) > 0 && !slices.ContainsFunc(from, func(f netip.Prefix) bool { return !p.Contains(f.Addr()) || f.Bits() < p.Bits() })
}

// ceiling is lines of a policy about one key, and what must hold of whoever they are for.
type ceiling struct {
	lines string
	holds func(*effective) bool
}

// ceilings are some for every key. Those of the empty line are tyrant mode's own.
var ceilings = map[string][]ceiling{
	"publish": {
		{"", func(e *effective) bool {
			return e.reached(func(_ netip.Addr, port int, _ bool, _ []netip.Prefix) bool { return port >= 1024 })
		}},
		{"publish = none", func(e *effective) bool { return len(e.resolved.published) == 0 }},
		{"publish = 8000-8003", func(e *effective) bool {
			return e.reached(func(_ netip.Addr, port int, udp bool, _ []netip.Prefix) bool {
				return port >= 8000 && port <= 8003 && !udp
			})
		}},
		{"publish = 80\npublish = 127.0.0.1:8000-8999/udp", func(e *effective) bool {
			return e.reached(func(host netip.Addr, port int, udp bool, _ []netip.Prefix) bool {
				return port == 80 && !udp || udp && host.IsLoopback() && host.Is4() && port >= 8000 && port <= 8999
			})
		}},
		{"publish = 0.0.0.0:8000-8999 from 10.0.0.0/8", func(e *effective) bool {
			return e.reached(func(host netip.Addr, port int, udp bool, from []netip.Prefix) bool {
				return host.Is4() && !udp && port >= 8000 && port <= 8999 && inside(from, "10.0.0.0/8")
			})
		}},
	},
	"publish-ports": {
		{"publish-ports = 0", func(e *effective) bool { return e.ports() == 0 }},
		{"publish-ports = 2", func(e *effective) bool { return e.ports() <= 2 }},
	},
	"network": {
		{"network = none", func(e *effective) bool { return len(e.networks()) == 0 }},
		{"network = tun0", func(e *effective) bool { return only(e.networks(), "tun0") }},
		{"network = tun1 bridge:br0", func(e *effective) bool { return only(e.networks(), "tun1", "bridge:br0") }},
	},
	"devices": {
		{"devices = 0", func(e *effective) bool { return len(e.links) == 0 }},
		{"devices = 1", func(e *effective) bool { return len(e.links) <= 1 }},
	},
	"tuntap-device": {
		{"tuntap-device = web*", func(e *effective) bool {
			for _, l := range e.links {
				ours := strings.HasPrefix(l.Device, "eth") // by the option network, or of an address alone
				if !ours && !strings.HasPrefix(l.Device, "web") {
					return false
				}
			}
			return true
		}},
	},
	"tuntap-device-address": {
		{"tuntap-device-address = none", func(e *effective) bool { return len(e.chosen()) == 0 }},
		{"tuntap-device-address = 10.9.0.8/29 fd09::/64", func(e *effective) bool {
			for _, a := range e.chosen() {
				if !netip.MustParsePrefix("10.9.0.8/29").Contains(a) && !netip.MustParsePrefix("fd09::/64").Contains(a) {
					return false
				}
			}
			return true
		}},
	},
	"unshare": {
		{"unshare = none", func(e *effective) bool { return e.all(^uintptr(0)) == 0 }},
		{"unshare = pid,fs", func(e *effective) bool {
			return e.all(unix.CLONE_NEWUSER|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWNET) == 0
		}},
	},
	"confine": {
		{"", func(e *effective) bool { return e.level.Full() }},
		{"confine = strict", func(e *effective) bool { return e.level == vassal.LevelStrict }},
		{"confine = default", func(e *effective) bool { return e.level.Full() }},
		{"confine = compat", func(e *effective) bool { return e.level != vassal.LevelNone }},
	},
	"writable": {
		{"writable = none", func(e *effective) bool { return len(e.places().Writable) == 0 }},
		{"writable = /srv/{owner}\nwritable = /var/spool/shop", func(e *effective) bool {
			return !slices.ContainsFunc(e.places().Writable, func(p string) bool { return !under(p, "/srv/1500") && !under(p, "/var/spool/shop") })
		}},
	},
	"bind": {
		{"bind = none", func(e *effective) bool { return len(e.places().Binds) == 0 }},
		{"bind = /srv/{owner}\nbind = /usr:ro", func(e *effective) bool {
			return !slices.ContainsFunc(e.places().Binds, func(b vassal.Bind) bool {
				return !under(b.Source, "/srv/1500") && (!b.ReadOnly || !under(b.Source, "/usr"))
			})
		}},
	},
	"rootfs": {{"rootfs = /srv/{owner}", func(e *effective) bool { i := e.plan.Isolation; return i.Root == "" || under(i.Root, "/srv/1500") }}},
	"listen-ports": {
		{"listen-ports = none", func(e *effective) bool { return e.listens() }},
		{"listen-ports = 8000-8002,9000", func(e *effective) bool { return e.listens(8000, 8001, 8002, 9000) }},
	},
	"limit-cpu": {
		{"limit-cpu = 1", func(e *effective) bool { return atMost(int64(e.resources.CPU), 1000) }},
		{"limit-cpu = 4", func(e *effective) bool { return atMost(int64(e.resources.CPU), 4000) }},
	},
	"limit-memory": {{"limit-memory = 128M", func(e *effective) bool { return atMost(e.resources.Memory, 128<<20) }}},
	"limit-pids":   {{"limit-pids = 100", func(e *effective) bool { return atMost(int64(e.resources.PIDs), 100) }}},
	"vassal-names": {{"vassal-names = {owner}-* web", func(e *effective) bool { return strings.HasPrefix(e.name, "1500-") || e.name == "web" }}},
}

// reaches are lines of inis that reach for what a policy bounds.
var reaches = []string{
	"publish = 80:80", "publish = 8000:80", "publish = 8000-8003:80-83", "publish = 8003-8004:80-81", "publish = 127.0.0.1:8100:80/udp", "publish = 8100:80/udp", "publish = 22:22",
	"publish = 0.0.0.0:8200:80 from 10.1.0.0/16", "publish = 10.1.1.1:8201:80 from 10.0.0.0/8", "publish = 10.1.1.1:8202:80 from 10.0.0.0/8,0.0.0.0/0", "publish = 10.1.1.1:8205:80", "publish = [::]:8203:80", "publish = [::1]:8204:80",
	"network = tun0", "network = tun1", "network = tun0 tun1", "network = none", "network = host", "network = bridge:br0", "network = bridge:br1 10.77.0.1/24",
	"tuntap-device = web0 /run/tun0", "tuntap-device = web1 /run/tun1", "tuntap-device = app /run/tun0", "tuntap-device = web2",
	"tuntap-device-address = 10.9.0.9", "tuntap-device-address = 10.9.0.17", "tuntap-device-address = 10.8.0.9", "tuntap-device-address = fd09::9", "tuntap-device-address = auto",
	"unshare = pid", "unshare = fs", "unshare = user", "unshare = uts,ipc", "limit-cpu = 0.5", "limit-cpu = 2", "limit-cpu = max", "limit-memory = 64M", "limit-memory = 1G",
	"confine = strict", "confine = default", "confine = compat", "confine = none", "listen-ports = 8000", "listen-ports = 8002,9000", "listen-ports = 22",
	"writable = /srv/1500/data", "writable = /srv/1500/../1501", "writable = /srv", "writable = /var/spool/shop", "writable = /var/spool/shopping", "rootfs = /srv/1500/root", "rootfs = /srv/1501",
	"bind = /srv/1500/conf:/run/conf", "bind = /usr/share:ro", "bind = /usr/share", "bind = /usr/../srv/1501:ro", "bind = /run/postgresql:/srv/1500/x", "bind = /srv/1500:/usr/x:ro",
	"limit-memory = max", "limit-pids = 50", "limit-pids = 5000", "limit-pids = max",
}

// drawnPolicy is a policy of some sections, and what holds of owner 1500:1600 by it.
func drawnPolicy(t *rapid.T) (text string, holds map[string]ceiling) {
	holds = map[string]ceiling{}
	keys := slices.Sorted(maps.Keys(ceilings))
	var sections []string
	for _, section := range []string{"user:1500", "group:1600", "policy", "user:1501", "group:1601"} { // from the one that counts most
		body := "[" + section + "]\n"
		for _, key := range keys {
			n := rapid.IntRange(-6, len(ceilings[key])).Draw(t, section+" "+key)
			if n < 0 {
				continue
			}
			c := ceiling{key + " = any", func(*effective) bool { return true }}
			if n < len(ceilings[key]) {
				c = ceilings[key][n]
			} else if ceilings[key][0].lines == "" {
				c.holds = ceilings[key][0].holds
			}
			if c.lines == "" {
				continue
			}
			body += c.lines + "\n"
			if _, said := holds[key]; !said && slices.Contains([]string{"user:1500", "group:1600", "policy"}, section) {
				holds[key] = c
			}
		}
		sections = append(sections, body)
	}
	for _, key := range []string{"publish", "confine"} {
		if _, said := holds[key]; !said {
			holds[key] = ceilings[key][0]
		}
	}
	return strings.Join(rapid.Permutation(sections).Draw(t, "order"), ""), holds
}

// rounds sets how many cases rapid tries.
func rounds(t *testing.T, n int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	was := f.Value.String()
	if err := f.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(was) })
}

// T30: whatever an owner's ini says, what he would start with is what the operator's
// policy has, and what tyrant mode leaves to owners. All of it is read from the start,
// nothing from the ini. make soak tries 100,000; for those alone:
//
//	FIEFDOM_SOAK=1 go test -run TestSoakRightsWithinPolicy ./emperor
func TestSoakRightsWithinPolicy(t *testing.T) {
	n := 3000
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		n = 100_000
	}
	rounds(t, n)
	dir := t.TempDir()
	networks := twoNetworks()
	networks[0].AttachAll = true
	wishes := slices.Concat(reaches, reaches, reaches, askables, grasps)
	all, accepted, bounded := 0, 0, 0
	e := testEmperor(t, networks...)
	e.Controllers = new(vassal.Controllers)
	rapid.Check(t, func(rt *rapid.T) {
		all++
		policy, holds := drawnPolicy(rt)
		given := rapid.SampledFrom([]uintptr{0, unix.CLONE_NEWPID | unix.CLONE_NEWNS}).Draw(rt, "emperor-use-clone")
		e.claims = Claims{}
		e.Config = &Config{
			Tyrant: true, Namespaces: given, PolicyFile: filepath.Join(dir, "policy.ini"), Bridges: []KernelBridge{{Network: Network{Device: "br0", Addresses: []netip.Prefix{prefix("10.66.0.1/24")}}}},
			Resources: vassal.Resources{CPU: rapid.SampledFrom([]int{0, 500, 2000, vassal.Unlimited}).Draw(rt, "emperor's limit-cpu")},
		}
		write(t, e.Config.PolicyFile, policy)
		if errs := e.Config.ReadPolicy(networks); errs.Failed() {
			rt.Fatalf("%v in\n%s", errs, policy)
		}
		name := rapid.SampledFrom([]string{"web", "1500-web", "shop"}).Draw(rt, "name")
		text := "[uwsgi]\ncommand = /bin/true\n" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(wishes), 0, 3).Draw(rt, "ini"), "\n") + "\n"
		path := filepath.Join(dir, name+".ini")
		write(t, path, text)
		c, errs := ReadVassal(name, path, nil)
		if errs.Failed() {
			return
		}
		v := &member{name: name, file: iniFile{name: name, path: path, owner: owner{1500, 1600}}}
		x := &expansion{Name: name, Config: c, Errors: errs}
		if e.claim(v, x).Failed() {
			return
		}
		r, bad := e.resolve(c)
		if bad != nil {
			return
		}
		accepted++
		if more := beyond(r); more != "" {
			rt.Fatalf("it got %s by the ini\n%s", more, text)
		}
		own := r.plan.Isolation.Namespaces()
		if r.plan.Users != nil {
			own |= unix.CLONE_NEWUSER
		}
		got := &effective{
			resolved: r, name: name,
			leased: func(a netip.Addr) bool { holder, ok := e.Leases.Holder(a); return ok && holder == name },
			// What makes more rights is a user namespace, whoever asks for it; others of those that the ini asks for.
			all: func(kinds uintptr) uintptr { return (own | r.namespaces&^given&unix.CLONE_NEWUSER) & kinds },
		}
		for key, ceiling := range holds {
			bounded++
			if !ceiling.holds(got) {
				rt.Fatalf("%s: beyond %q it got devices %+v, ports %+v, limits %+v, namespaces %#x by the ini\n%s\nunder the policy\n%s", key, ceiling.lines, r.links, r.published, r.resources, r.namespaces, text, policy)
			}
		}
	})
	t.Logf("%d of %d inis were accepted, under %d bounds", accepted, all, bounded)
	if !t.Failed() && (accepted < n/20 || bounded < n/5) {
		t.Error("too few to tell")
	}
}

// However inis come and go, nobody has more vassals than the policy lets him.
func TestOwnersNeverHaveMoreVassals(t *testing.T) {
	most := map[uint32]int{1500: 1, 1501: 3, 1502: 2}
	e := underPolicy(t, "[policy]\nvassals = 2\n[user:1500]\nvassals = 1\n[user:1501]\nvassals = 3\n")
	inis := map[string]*vassal.Config{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		inis[name] = goodVassal(t, name, "")
	}
	rapid.Check(t, func(rt *rapid.T) {
		e.claims = Claims{}
		for range rapid.IntRange(1, 30).Draw(rt, "changes") {
			name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "vassal")
			if rapid.Bool().Draw(rt, "goes") {
				e.claims.Remove(name)
				continue
			}
			uid := rapid.SampledFrom([]uint32{1500, 1501, 1502}).Draw(rt, "owner")
			c := *inis[name]
			if errs := tyrant(&c, owner{uid, 1600}); errs.Failed() {
				rt.Fatal(errs)
			}
			had, others := map[uint32]int{}, 0
			for vassal, who := range e.claims.owners {
				had[uint32(who)]++
				if uint32(who) == uid && vassal != name {
					others++
				}
			}
			if refused := e.claimFor(&c).Failed(); refused != (others >= most[uid]) {
				rt.Fatalf("%s of %d, who has %d others of %d: refused %v", name, uid, others, most[uid], refused)
			}
		}
	})
}
