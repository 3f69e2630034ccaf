package emperor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// A range stays with its name, is nobody else's, and goes to others when its ini
// is gone and no other is left.
func TestRangesOfUIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	e := testEmperor(t)
	e.Leases = noLeases(t, path)
	first := defaultPool.First
	e.Config.UsersPool = IDPool{first, first + 3*vassal.RangeSize - 1}
	held := map[string]int{}
	for _, name := range []string{"blog", "shop", "mail"} {
		got, err := e.leaseRange(name)
		if err != nil {
			t.Fatal(err)
		}
		for other, theirs := range held {
			if rangesMeet(got, theirs) {
				t.Errorf("%s has %d, %s %d", name, got, other, theirs)
			}
		}
		held[name] = got
		e.vassals[name] = &member{name: name}
	}
	if _, err := e.leaseRange("wiki"); err == nil || !strings.Contains(err.Error(), "widen userns-pool") {
		t.Errorf("a fourth of three: %v", err)
	}
	if err := e.Leases.save(); err != nil {
		t.Fatal(err)
	}
	e.Leases = noLeases(t, path)
	for name, want := range held {
		if got, err := e.leaseRange(name); err != nil || got != want {
			t.Errorf("%s has %d, %v; want %d", name, got, err, want)
		}
	}
	delete(e.vassals, "shop")
	if got, err := e.leaseRange("wiki"); err != nil || got != held["shop"] {
		t.Errorf("the range of a vassal that is gone: %d, %v; want %d", got, err, held["shop"])
	}
	// Another pool, which begins in the middle of a range that is leased.
	e.Config.UsersPool = IDPool{held["blog"] + 100, held["blog"] + 100 + 2*vassal.RangeSize}
	if got, err := e.leaseRange("new"); err == nil {
		for name, theirs := range e.Leases.file.Ranges {
			if name != "new" && rangesMeet(got, theirs) {
				t.Errorf("%d overlaps that of %s, %d", got, name, theirs)
			}
		}
	}
}

// Emperors beside each other lease from one pool, at the same time, and never the
// same; what others than they can write counts for nothing.
func TestRangesOfEmperorsBesideEachOther(t *testing.T) {
	around := t.TempDir()
	const count, each = 4, 16
	pool := IDPool{defaultPool.First, defaultPool.First + (count+1)*each*vassal.RangeSize - 1}
	emperors := make([]*Emperor, count)
	for i := range emperors {
		dir := filepath.Join(around, fmt.Sprint("emperor", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		emperors[i] = testEmperor(t)
		emperors[i].Leases, emperors[i].Config.UsersPool = noLeases(t, filepath.Join(dir, "leases.json")), pool
	}
	stranger := filepath.Join(around, "stranger")
	if err := errors.Join(os.Mkdir(stranger, 0o700), unix.Mkfifo(filepath.Join(stranger, "leases.json"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, e := range emperors {
		all.Go(func() {
			for n := range each {
				if _, err := e.leaseRange(fmt.Sprint("vassal", n)); err != nil { // of the same names
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	held := map[int]int{}
	for i, e := range emperors {
		for name, first := range e.Leases.file.Ranges {
			if other, taken := held[first]; taken {
				t.Errorf("%s of emperor%d and one of emperor%d have %d", name, i, other, first)
			}
			held[first] = i
		}
	}
	if len(held) != count*each {
		t.Errorf("%d ranges of %d", len(held), count*each)
	}
	// One that was copied with the whole state of another makes way.
	first, second := emperors[0], emperors[1]
	theirs := second.Leases.file.Ranges["vassal0"]
	first.Leases.file.Ranges["vassal0"] = theirs
	if got, err := first.leaseRange("vassal0"); err != nil || got == theirs {
		t.Errorf("it has %d, %v, which is another's", got, err)
	}
	if got, err := second.leaseRange("vassal0"); err != nil || got != theirs {
		t.Errorf("the other has %d, %v; want %d as before", got, err, theirs)
	}
	write(t, filepath.Join(around, "emperor3", "leases.json"), "{")
	if _, err := first.leaseRange("new"); err == nil || !strings.Contains(err.Error(), "leases of another emperor, "+around+"/emperor3/leases.json") {
		t.Errorf("leases that nobody can read: %v", err)
	}
}

// An emperor leases no uid that another beside it has saved, as long as there are
// others; what is leased stays.
func TestUIDsOfEmperorsBesideEachOther(t *testing.T) {
	around := t.TempDir()
	var all []*Leases
	for i := range 3 {
		dir := filepath.Join(around, fmt.Sprint("emperor", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		all = append(all, noLeases(t, filepath.Join(dir, "leases.json")))
	}
	write(t, filepath.Join(around, "emperor2", "leases.json"), "{") // what nobody can read keeps nobody
	first, second := all[0], all[1]
	lease := func(l *Leases, name string) int {
		uid, err := l.UID(name)
		if err := errors.Join(err, l.save()); err != nil {
			t.Fatal(err)
		}
		return uid
	}
	blog := lease(first, "blog")
	if theirs := lease(second, "blog"); theirs == blog {
		t.Errorf("both have %d", blog)
	}
	second.file.UIDs["blog"] = blog
	if theirs := lease(second, "blog"); theirs != blog {
		t.Errorf("what has %d, with its files, is %d now", blog, theirs)
	}
	for i := len(first.file.UIDs); i <= lastUID-firstUID; i++ {
		if _, err := first.UID(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.save(); err != nil {
		t.Fatal(err)
	}
	if uid := lease(second, "late"); uid < firstUID || uid > lastUID {
		t.Errorf("none is left for it: %d", uid)
	}
}

func TestRangesThatOverlap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	write(t, path, fmt.Sprintf(`{"ranges": {"blog": %d, "shop": %d}}`, defaultPool.First, defaultPool.First+5))
	if _, err := LoadLeases(path); err == nil || !strings.Contains(err.Error(), `the ranges of uids of "blog" and "shop" overlap`) {
		t.Errorf("got %v", err)
	}
}

func TestPoolOfUIDs(t *testing.T) {
	for text, want := range map[string]string{
		"1879048192-1879179263": "",
		"100000":                "want FIRST-LAST",
		"a-b":                   "want FIRST-LAST",
		"1000-200000":           "the host's own",
		"1879048192-1879048200": "less than the 65536",
		"1879048192-4294967295": "up to 2147483647",
	} {
		c := &Config{}
		err := setPool(c, ini.Pair{Value: text})
		if want == "" && (err != nil || c.UsersPool.String() != text) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	dir := t.TempDir()
	users, ranges := filepath.Join(dir, "passwd"), filepath.Join(dir, "subuid")
	write(t, users, "root:x:0:0::/:/bin/sh\nfar:x:1879050000:100::/:/bin/sh\n")
	write(t, ranges, "alice:100000:65536\nbob:1879100000:65536\n# a comment\n")
	for name, c := range map[string]struct {
		pool IDPool
		file idFile
		want string
	}{
		"a user":          {IDPool{1879048192, 1879179263}, idFile{users, 2, -1}, "gives far ids from 1879050000"},
		"beside users":    {IDPool{1879100000, 1879179263}, idFile{users, 2, -1}, ""},
		"a range":         {IDPool{1879048192, 1879179263}, idFile{ranges, 1, 2}, "gives bob ids from 1879100000 to 1879165535; choose others by userns-pool"},
		"beside ranges":   {IDPool{200000, 400000}, idFile{ranges, 1, 2}, ""},
		"no such file":    {IDPool{200000, 400000}, idFile{dir + "/none", 1, 2}, ""},
		"the last of one": {IDPool{165535, 400000}, idFile{ranges, 1, 2}, "gives alice"},
	} {
		if err := c.pool.free([]idFile{c.file}); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Who an app with a range is, inside and on disk, follows from its ini.
func TestResolveRange(t *testing.T) {
	const leased, own = -1, 1500 // the uid that its name leases
	for name, c := range map[string]struct {
		text         string
		tyrant       bool
		inside, disk int
		fails        string
	}{
		"no uid":                  {text: "tuntap-device-address = 10.9.0.7", inside: leased, disk: leased},
		"root of a rootfs":        {text: "rootfs = /srv/root", inside: 0, disk: leased},
		"a uid in a rootfs":       {text: "rootfs = /srv/root\nuid = 33\ngid = 33", inside: 33, disk: 33},
		"root":                    {text: "uid = 0\ngid = 0\nconfine = default", inside: 0, disk: leased},
		"a uid":                   {text: "tuntap-device-address = 10.9.0.7\nuid = 33\ngid = 33", inside: 33, disk: 33},
		"a uid that is too big":   {text: "tuntap-device-address = 10.9.0.7\nuid = 100000", fails: "none of the 65536"},
		"an owner":                {tyrant: true, inside: own, disk: own},
		"an owner's rootfs":       {text: "rootfs = /srv/root", tyrant: true, inside: 0, disk: own},
		"an owner's rights":       {text: "rootfs = /srv/root\ncap = setuid,chown", tyrant: true, inside: 0, disk: own},
		"rights that are no ids'": {text: "rootfs = /srv/root\ncap = net_admin", tyrant: true, fails: "cap is not allowed"},
		"uWSGI's way":             {text: "confine = compat", fails: "goes with confine = default"},
		"two user namespaces":     {text: "unshare = user\nconfine = default", fails: "exclude each other"},
		"a chroot":                {text: "chroot = /srv/root\nconfine = default", fails: "write rootfs"},
		"a daemon of root's":      {text: "tuntap-device-address = 10.9.0.7\nattach-daemon2 = cmd=true,uid=0", fails: "root's only where the app has"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			e.Config.Tyrant = c.tyrant
			v := goodVassal(t, "blog", "userns = auto\n"+c.text)
			var message string
			if c.tyrant {
				if errs := tyrant(v, owner{own, own}); errs.Failed() {
					message = errs[0].Message
				}
			}
			r, bad := e.resolve(v)
			if bad != nil {
				message += bad.Message
			}
			if c.fails != "" || message != "" {
				if c.fails == "" || !strings.Contains(message, c.fails) {
					t.Errorf("got %q, want %q", message, c.fails)
				}
				return
			}
			uid, err := e.leaseUID("blog")
			if err != nil {
				t.Fatal(err)
			}
			real := func(id int) int {
				if id == leased {
					return uid
				}
				return id
			}
			p := r.plan
			if p.Users == nil || p.Users.Inside(p.UID) != real(c.inside) || p.Users.Inside(p.GID) != real(c.inside) || p.Users.UID != real(c.disk) || p.Users.GID != real(c.disk) {
				t.Errorf("uid %d, gid %d, %+v", p.UID, p.GID, p.Users)
			}
		})
	}
}

// Groups on disk are those of the range, and root's is none of them.
func TestGroupsOfARange(t *testing.T) {
	p := &vassal.Plan{Users: &vassal.Users{First: 0x70000000, UID: 61200, GID: 61200}, UID: 0x70000000, GID: 0x70000000}
	if got := inRange(p, []int{0, 7, 61200, 100000}); !slices.Equal(got, []int{0x70000007, 0x70000000}) {
		t.Errorf("got %x", got)
	}
	p.UID, p.GID = 0x70000000+61200, 0x70000000+61200
	if got := inRange(p, []int{0, 7, 61200}); !slices.Equal(got, []int{0x70000007, 0x70000000 + 61200}) {
		t.Errorf("by its number: %x", got)
	}
	// A process of its own user, who is the app's on disk, is the app's inside.
	app := vassal.Plan{Users: p.Users, UID: 0x70000000, GID: 0x70000000}
	otherUser(&app, &vassal.Attached{UID: &vassal.Identity{ID: 61200, Main: 61200}})
	if app.UID != 0x70000000 || app.GID != 0x70000000 {
		t.Errorf("it is %x:%x", app.UID, app.GID)
	}
}
