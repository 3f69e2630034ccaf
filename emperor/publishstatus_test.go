package emperor

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// What is only wanted, or was refused, is not told as published.
func TestStatusTellsThePortsThatAreInForce(t *testing.T) {
	within(t, func() {
		e := &Emperor{Instance: &Instance{Name: "one", Runtime: t.TempDir() + "/one"}, Log: slog.New(slog.DiscardHandler)}
		jail := &vassal.Jail{Name: "blog", Inode: 7}
		e.jails.Store(jail.Inode, jail)
		link := vassal.Link{Device: "eth0", Network: "fief0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/16")}}
		var meanwhile []string
		var refuse error
		told := func() []string { return PublishedTexts(e.publishedStatus(jail)) }
		e.Publish = func([]Published) error {
			meanwhile = append(meanwhile, told()...)
			return refuse
		}
		for _, step := range []struct {
			ports     string
			refuse    error
			meanwhile []string
			after     []string
		}{
			{"8080:80", nil, nil, []string{"8080:80"}},
			{"8081:80", nil, []string{"8080:80"}, []string{"8081:80"}},
			// Refused: what was before goes on, and is put in force once more.
			{"8082:80", errors.New("no iptables"), []string{"8081:80", "8081:80"}, []string{"8081:80"}},
			{"8082:80", nil, []string{"8081:80"}, []string{"8082:80"}},
		} {
			meanwhile, refuse = nil, step.refuse
			list, want, bad := publishedBy(published(t, step.ports), []vassal.Link{link})
			if bad != nil {
				t.Fatal(bad)
			}
			if err := e.publish(jail, list, want); (err != nil) != (step.refuse != nil) {
				t.Fatal(err)
			}
			if !slices.Equal(meanwhile, step.meanwhile) || !slices.Equal(told(), step.after) {
				t.Errorf("%s: %q while it was put in force, then %q; want %q, %q", step.ports, meanwhile, told(), step.meanwhile, step.after)
			}
		}
		e.KeepPublished(func(Published) bool { return false })
		if got := told(); len(got) > 0 {
			t.Errorf("%q goes on in another network", got)
		}
	})
}

// A network that becomes another one while a port of its vassal is being published:
// the vassal is told, and nothing of it is left.
func TestPublishInANetworkThatChangesMeanwhile(t *testing.T) {
	within(t, func() {
		e := &Emperor{Instance: &Instance{Name: "one", Runtime: t.TempDir() + "/one"}, Log: slog.New(slog.DiscardHandler)}
		jail := &vassal.Jail{Name: "blog", Inode: 7}
		e.jails.Store(jail.Inode, jail)
		link := vassal.Link{Device: "eth0", Bridge: "br0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.100.0.7/24")}}
		gone := false
		e.Publish = func([]Published) error {
			if gone {
				e.KeepPublished(func(Published) bool { return false })
			}
			return nil
		}
		for _, ports := range []string{"8080:80", "8081:80"} {
			list, want, bad := publishedBy(published(t, ports), []vassal.Link{link})
			if bad != nil {
				t.Fatal(bad)
			}
			if err := e.publish(jail, list, want); (err != nil) != gone {
				t.Errorf("%s: %v", ports, err)
			}
			gone = true
		}
		if told := e.publishedStatus(jail); len(told) > 0 || len(e.Publications()) > 0 {
			t.Errorf("%v is still published", told)
		}
		for _, port := range []uint16{8080, 8081} {
			f, err := bindPort(hostPort{Addr: netip.IPv4Unspecified(), Proto: unix.IPPROTO_TCP, Port: port})
			if err != nil {
				t.Error(err)
			}
			_ = f.Close()
		}
	})
}
