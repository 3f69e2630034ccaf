package emperor

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"fiefdom/vassal"
)

// Vassals that take each other's ports have them in the end, in whatever order they
// come; nobody has to be told twice.
func TestPublishedPortsAreSwapped(t *testing.T) {
	within(t, func() {
		e := &Emperor{Instance: &Instance{Name: "one", Runtime: t.TempDir() + "/one"}, Log: slog.New(slog.DiscardHandler)}
		e.Publish = func([]Published) error { return nil }
		names := []string{"blog", "shop", "wiki"}
		jails := map[string]*vassal.Jail{}
		for i, name := range names {
			jails[name] = &vassal.Jail{Name: name, Inode: uint64(i + 1)}
			e.jails.Store(jails[name].Inode, jails[name])
		}
		publish := func(name string, lines ...string) error {
			link := vassal.Link{Device: "eth0", Network: "fief0", Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(jails[name].Inode)}), 16)}}
			c := published(t, lines...)
			c.Name = name
			list, want, bad := publishedBy(c, []vassal.Link{link})
			if bad != nil {
				t.Fatal(bad)
			}
			return e.publish(jails[name], list, want)
		}
		ports := []string{"8080:80", "8081:80", "8082:80"}
		for i, name := range names {
			if err := publish(name, ports[i], string('1'+rune(i))+"000:80"); err != nil {
				t.Fatal(err)
			}
		}
		for round := 1; ; round++ {
			waiting := 0
			for i, name := range names {
				if err := publish(name, ports[(i+1)%3], string('1'+rune(i))+"000:80"); err != nil {
					if _, taken := errors.AsType[*takenError](err); !taken {
						t.Fatal(err)
					}
					waiting++
				}
				if told := PublishedTexts(e.publishedStatus(jails[name])); !slices.Contains(told, string('1'+rune(i))+"000:80") {
					t.Errorf("%s lost what it had and keeps: %q", name, told)
				}
			}
			if waiting == 0 {
				break
			}
			if round == 3 {
				t.Fatalf("%d still wait for each other", waiting)
			}
		}
		// What somebody else has takes nothing away.
		f, err := bindPort(hostPort{Addr: netip.IPv4Unspecified(), Proto: 6, Port: 7000})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := publish("blog", "7000:80"); err == nil || len(e.publishedStatus(jails["blog"])) != 2 {
			t.Error(err, e.publishedStatus(jails["blog"]))
		}
	})
}
