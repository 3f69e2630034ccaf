package vassal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// Whoever looks at the host's devices, as the firewall does for those by which
// visitors may come, knows a vassal's end at the first sight of it.
func TestHostEndHasItsAliasFromTheFirstMoment(t *testing.T) {
	nettest.Root(t)
	host := nettest.NewNS(t)
	host.Do(t, func() {
		seen := make(chan netlink.LinkUpdate, 64)
		done := make(chan struct{})
		defer close(done)
		if err := netlink.LinkSubscribe(seen, done); err != nil {
			t.Fatal(err)
		}
		l := Link{Device: "eth0", MTU: 1400}
		l.Plugged("emperor", "blog", "br0", 1450, true)
		j, err := NewJail("blog", true, []Link{l})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		}()
		late := time.After(10 * time.Second)
		for {
			select {
			case u := <-seen:
				a := u.Attrs()
				if u.Header.Type != unix.RTM_NEWLINK || a.Name != l.HostEnd {
					continue
				}
				if !IsHostEnd("emperor", u) || a.Alias != l.Alias || a.MTU != 1450 || a.MasterIndex != 0 {
					t.Errorf("the first that is seen of %s is %+v, want it with the alias %q", l.HostEnd, a, l.Alias)
				}
				return
			case <-late:
				t.Fatal("nothing is told of the host's end")
			}
		}
	})
}

// What a failure kept from a host end is tried again, and not taken for done.
func TestOpenedAgainAfterAFailure(t *testing.T) {
	nettest.Root(t)
	host := nettest.NewNS(t)
	host.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link set br0 up")
	host.Do(t, func() {
		l := Link{Device: "eth0", MTU: 1400}
		l.Plugged("emperor", "blog", "br0", 1450, true)
		j, err := NewJail("blog", true, []Link{l})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Plug(&Plugger{Admit: func(HostEnd) error { return nil }, Release: func(string) error { return nil }}); err != nil {
			t.Fatal(err)
		}
		host.Run(t, "ip", "link", "set", l.HostEnd, "name", "other")
		if err := j.Opened(true); err == nil || j.HostEnds()[0].Open {
			t.Errorf("its host end is away: %v, and open is %v", err, j.HostEnds()[0].Open)
		}
		host.Run(t, "ip", "link", "set", "other", "name", l.HostEnd)
		if err := j.Opened(true); err != nil {
			t.Error(err)
		}
		if got := host.Run(t, "bridge", "-d", "link", "show", "dev", l.HostEnd); !strings.Contains(got, "hairpin on") || !strings.Contains(got, "isolated off") {
			t.Errorf("open, it is\n%s", got)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Who goes before the next emperor has plugged him in again leaves no rules.
func TestAdoptedJailThatGoesAtOnceIsReleased(t *testing.T) {
	nettest.Root(t)
	nettest.NewNS(t).Do(t, func() {
		l := Link{Device: "eth0", MTU: 1400}
		l.Plugged("emperor", "blog", "br0", 1450, true)
		j, err := NewJail("blog", true, []Link{l})
		if err != nil {
			t.Fatal(err)
		}
		var released []string
		j.KeptBy(&Plugger{Release: func(device string) error { released = append(released, device); return nil }})
		if err := j.Close(); err != nil || len(released) != 1 || released[0] != l.HostEnd {
			t.Errorf("released are %q, %v", released, err)
		}
	})
}

// A jail that has left is closed at leisure, beside the vassal's next one, whose host
// end has the same name.
func TestAJailThatIsClosedLateLeavesTheNextAlone(t *testing.T) {
	nettest.Root(t)
	host := nettest.NewNS(t)
	host.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link set br0 up")
	host.Do(t, func() {
		released := 0
		plugger := &Plugger{Admit: func(HostEnd) error { return nil }, Release: func(string) error { released++; return nil }}
		begin := func() *Jail {
			l := Link{Device: "eth0", MTU: 1400}
			l.Plugged("emperor", "blog", "br0", 1450, true)
			j, err := NewJail("blog", true, []Link{l})
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Plug(plugger); err != nil {
				t.Fatal(err)
			}
			return j
		}
		old := begin()
		if err := old.Leave(); err != nil {
			t.Error(err)
		}
		next := begin()
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		end := next.HostEnds()[0].Device
		if got := host.Run(t, "bridge", "link", "show"); !strings.Contains(got, end) || released != 1 {
			t.Errorf("%d were released, and in the bridge is %q, want %s of the next jail", released, got, end)
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestHostEndNames(t *testing.T) {
	const many = 300_000 // of 32 bits some would be the same
	taken := make(map[string]bool, many)
	for i := range many {
		name := hostEndName("customers", fmt.Sprint("vassal", i), "eth0")
		if taken[name] || len(name) >= unix.IFNAMSIZ || !strings.HasPrefix(name, "cus-") {
			t.Fatalf("device %d is %q, which is taken: %t", i, name, taken[name])
		}
		taken[name] = true
	}
}
