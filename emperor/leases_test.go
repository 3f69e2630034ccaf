package emperor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func noLeases(t interface{ Fatal(...any) }, path string) *Leases {
	l, err := LoadLeases(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func free(netip.Addr) bool { return false }

func TestLeasesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	pool := prefix("10.9.0.0/16")
	l := noLeases(t, path)
	a, err := l.Address(pool, "blog", free)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := l.UID("blog")
	if err != nil || !l.dirty {
		t.Fatal(err, l.dirty)
	}
	if err := l.save(); err != nil || l.dirty {
		t.Fatal(err, l.dirty)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	again := noLeases(t, path)
	if b, err := again.Address(pool, "blog", free); err != nil || b != a {
		t.Errorf("address %s, then %s, %v", a, b, err)
	}
	if u, err := again.UID("blog"); err != nil || u != uid || again.dirty {
		t.Errorf("uid %d, then %d, %v, dirty %v", uid, u, err, again.dirty)
	}
	// Without the file the name still leads to the same.
	if b, err := noLeases(t, path+".lost").Address(pool, "blog", free); err != nil || b != a {
		t.Errorf("address %s, without the file %s, %v", a, b, err)
	}
	if name, ok := again.Holder(a); !ok || name != "blog" {
		t.Errorf("holder of %s: %q, %v", a, name, ok)
	}
	if name, ok := again.Holder(a.Next()); ok {
		t.Errorf("holder of %s: %q", a.Next(), name)
	}
}

func TestLeaseMovesWhenItsAddressIsTaken(t *testing.T) {
	l := noLeases(t, filepath.Join(t.TempDir(), "leases.json"))
	pool := prefix("10.9.0.0/24")
	a, err := l.Address(pool, "blog", free)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Address(pool, "blog", func(x netip.Addr) bool { return x == a })
	if err != nil || b == a {
		t.Errorf("%s, %v", b, err)
	}
}

func TestLeasesRunOut(t *testing.T) {
	l := noLeases(t, filepath.Join(t.TempDir(), "leases.json"))
	pool := prefix("10.9.0.0/29")
	router := addr("10.9.0.1")
	seen := map[netip.Addr]bool{}
	for i := range 5 { // 8 less the network, the broadcast address, the router
		a, err := l.Address(pool, fmt.Sprint(i), func(a netip.Addr) bool { return a == router })
		if err != nil || seen[a] || a == router || !pool.Contains(a) || a == addr("10.9.0.0") || a == addr("10.9.0.7") {
			t.Fatalf("%d: %s, %v", i, a, err)
		}
		seen[a] = true
	}
	if a, err := l.Address(pool, "more", func(a netip.Addr) bool { return a == router }); err == nil || !strings.Contains(err.Error(), "widen tuntap-router-address") {
		t.Errorf("%s, %v", a, err)
	}
	for i := firstUID; i <= lastUID; i++ {
		if uid, err := l.UID(fmt.Sprint(i)); err != nil || uid < firstUID || uid > lastUID {
			t.Fatal(uid, err)
		}
	}
	if uid, err := l.UID("more"); err == nil {
		t.Errorf("uid %d", uid)
	}
}

func TestLeasesFile(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"torn":           {`{"uids": {"a": 612`, "repair the file"},
		"empty":          {"", "repair the file"},
		"no address":     {`{"addresses": {"10.9.0.0/16": {"a": "here"}}}`, "repair the file"},
		"no prefix":      {`{"addresses": {"10.9.0.0": {"a": "10.9.0.1"}}}`, "repair the file"},
		"one uid twice":  {`{"uids": {"a": 61200, "b": 61200}}`, `uid 61200 is leased to "a" and to "b"`},
		"one addr twice": {`{"addresses": {"10.9.0.0/16": {"a": "10.9.0.7", "b": "10.9.0.7"}}}`, `10.9.0.7 is leased to "a" and to "b"`},
		"two pools":      {`{"addresses": {"10.9.0.0/16": {"a": "10.9.0.7"}, "10.9.0.0/24": {"b": "10.9.0.7"}}}`, "leased to"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "leases.json")
			write(t, path, tc.text)
			if _, err := LoadLeases(path); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestLeasesFileThatIsOdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	write(t, path, `{"addresses": {"10.9.0.0/16": null, "10.8.0.0/16": {"a": "192.0.2.1"}}, "uids": {"root": 0}}`)
	l := noLeases(t, path)
	if uid, err := l.UID("root"); err != nil || uid < firstUID {
		t.Errorf("uid %d, %v", uid, err)
	}
	for _, pool := range []string{"10.9.0.0/16", "10.8.0.0/16"} {
		if a, err := l.Address(prefix(pool), "a", free); err != nil || !prefix(pool).Contains(a) {
			t.Errorf("%s of %s, %v", a, pool, err)
		}
	}
}

// TestLeasesProperty leases at random and checks what must always hold.
func TestLeasesProperty(t *testing.T) {
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		path := filepath.Join(dir, fmt.Sprint(runs))
		l := noLeases(t, path)
		pool := rapid.SampledFrom([]netip.Prefix{prefix("10.9.0.0/27"), prefix("10.9.1.64/28"), prefix("fd09::/123"), prefix("fd09::/64")}).Draw(t, "pool")
		never := map[netip.Addr]bool{pool.Addr().Next(): true}
		saves := 0
		leased, uids := map[string]netip.Addr{}, map[string]int{}
		t.Repeat(map[string]func(*rapid.T){
			"lease": func(t *rapid.T) {
				name := rapid.StringMatching(`[a-f]{1,2}`).Draw(t, "name")
				a, err := l.Address(pool, name, func(a netip.Addr) bool { return never[a] })
				if err != nil {
					t.Skip("full")
				}
				if old, ok := leased[name]; ok && a != old && !never[old] {
					t.Fatalf("%s moved from %s to %s", name, old, a)
				}
				leased[name] = a
				for other, b := range leased {
					if other != name && a == b {
						t.Fatalf("%s and %s both have %s", name, other, a)
					}
				}
				if !pool.Contains(a) || never[a] || a == pool.Addr() {
					t.Fatalf("%s has %s", name, a)
				}
				uid, err := l.UID(name)
				if old, ok := uids[name]; err != nil || ok && old != uid {
					t.Fatalf("uid %d, %v, before %d", uid, err, old)
				}
				uids[name] = uid
			},
			"declare": func(t *rapid.T) {
				if len(never) > 5 {
					t.Skip("enough")
				}
				a := nth(pool, rapid.Uint32Range(1, 14).Draw(t, "address"))
				never[a] = true
				for name, b := range leased {
					if a == b {
						delete(leased, name) // it moves when it is asked for next
					}
				}
			},
			"save and load": func(t *rapid.T) {
				if saves++; saves > 2 {
					t.Skip("each waits for the disk")
				}
				if err := l.save(); err != nil {
					t.Fatal(err)
				}
				l = noLeases(t, path)
			},
		})
	})
}

func TestClaims(t *testing.T) {
	var cl Claims
	a := goodVassal(t, "a", "tuntap-device-address = 10.9.0.7, fd09::7")
	b := goodVassal(t, "b", "tuntap-device-address = 10.9.0.8, 10.9.0.7")
	if errs := cl.Add(a); len(errs) > 0 {
		t.Fatal(errs)
	}
	errs := cl.Add(b)
	if len(errs) != 1 || !strings.Contains(errs[0].Message, "10.9.0.7 is already used by "+a.File+":3") || errs[0].Pos.Line != 3 {
		t.Fatalf("%v", errs)
	}
	if name, ok := cl.Holder(addr("10.9.0.8")); ok {
		t.Errorf("a claim that failed left 10.9.0.8 with %q", name)
	}
	// A new ini replaces what its vassal claimed before.
	if errs := cl.Add(goodVassal(t, "a", "tuntap-device-address = 10.9.0.9")); len(errs) > 0 {
		t.Fatal(errs)
	}
	if errs := cl.Add(b); len(errs) > 0 {
		t.Fatal(errs)
	}
	cl.Remove("b")
	if name, ok := cl.Holder(addr("10.9.0.7")); ok {
		t.Errorf("10.9.0.7 is still %q's", name)
	}
	if name, ok := cl.Holder(addr("10.9.0.9")); !ok || name != "a" {
		t.Errorf("10.9.0.9 is %q's, %v", name, ok)
	}
}

// Names that are gone give their leases when there are none left, and names
// that are there keep theirs.
func TestLeasesOfTheGoneAreUsedAgain(t *testing.T) {
	e := testEmperor(t, Network{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/29")}, AttachAll: true})
	e.newMember(iniFile{name: "stays"})
	kept, bad := e.resolve(goodVassal(t, "stays", ""))
	if bad != nil {
		t.Fatal(*bad)
	}
	for i := range 4 { // the rest of the pool, by names that are not there any more
		if _, bad := e.resolve(goodVassal(t, fmt.Sprint("gone", i), "")); bad != nil {
			t.Fatal(*bad)
		}
	}
	for i := firstUID; ; i++ {
		if _, err := e.Leases.UID(fmt.Sprint(i)); err != nil {
			break
		}
	}
	e.newMember(iniFile{name: "new"})
	r, bad := e.resolve(goodVassal(t, "new", ""))
	if bad != nil {
		t.Fatal(*bad)
	}
	if r.links[0].Addresses[0] == kept.links[0].Addresses[0] || r.plan.UID == kept.plan.UID {
		t.Errorf("new has %v and uid %d, as stays has", r.links[0].Addresses, r.plan.UID)
	}
	again, bad := e.resolve(goodVassal(t, "stays", ""))
	if bad != nil || again.key != kept.key || again.plan.UID != kept.plan.UID {
		t.Errorf("stays moved from %v to %v", kept.links, again.links)
	}
}

func TestRouterKeepsItsUID(t *testing.T) {
	e := testEmperor(t, twoNetworks()...)
	e.RouterUID = 65519
	if _, bad := e.resolve(goodVassal(t, "blog", "uid = 65519")); bad == nil || !strings.Contains(bad.Message, "the router's own") {
		t.Errorf("resolved: %v", bad)
	}
}
