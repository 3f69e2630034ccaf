package emperor

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// What is published changes as a whole or not at all, also when the ports of before are in
// the way of the new ones.
func TestAChangeOfPublishedPortsIsWholeOrNone(t *testing.T) {
	within(t, func() {
		e := &Emperor{Instance: &Instance{Name: "one", Runtime: t.TempDir() + "/one"}, Log: slog.New(slog.DiscardHandler)}
		jail := &vassal.Jail{Name: "blog", Inode: 7}
		e.jails.Store(jail.Inode, jail)
		link := vassal.Link{Device: "eth0", Network: "fief0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/16")}}
		var inForce []Published
		var refuse error
		e.Publish = func(all []Published) error {
			if refuse == nil {
				inForce = all
			}
			return refuse
		}
		publish := func(lines ...string) error {
			list, want, bad := publishedBy(published(t, lines...), []vassal.Link{link})
			if bad != nil {
				t.Fatal(bad)
			}
			return e.publish(jail, list, want)
		}
		free := func(text string) bool {
			l, err := net.Listen("tcp4", text)
			if err == nil {
				_ = l.Close()
			}
			return err == nil
		}
		if err := publish("8080:80", "8080:80/udp"); err != nil || len(inForce) != 2 || free("127.0.0.1:8080") {
			t.Fatal(err, inForce)
		}
		kept := e.keepDescriptors(t, "blog") // as the vault does
		if err := publish("127.0.0.1:8080:80", "127.0.0.1:8080:80/udp", "9000:80"); err != nil || len(inForce) != 3 || free("127.0.0.1:8080") || free("127.0.0.1:9000") {
			t.Fatal(err, inForce)
		}
		kept()
		if err := publish("127.0.0.1:8080:80", "9000:80"); err != nil || len(inForce) != 2 || free("127.0.0.1:8080") || !free("127.0.0.2:8080") || free("127.0.0.1:9000") {
			t.Fatal(err, inForce)
		}
		// One is taken: nothing has changed.
		l, err := net.Listen("tcp4", "127.0.0.1:7000")
		if err != nil {
			t.Fatal(err)
		}
		var taken *takenError
		if err := publish("8080:80", "7000:80"); !errors.As(err, &taken) || !strings.Contains(err.Error(), "port 7000/tcp of the host is taken by emperor.test (pid ") {
			t.Fatal(err)
		}
		if free("127.0.0.1:8080") || !free("127.0.0.2:8080") || free("127.0.0.1:9000") {
			t.Error("what was published before is not held any more, or too much is")
		}
		_ = l.Close()
		// The host refuses: nothing has changed.
		refuse = errors.New("no iptables")
		if err := publish("8080:80", "7000:80"); err == nil || !strings.Contains(err.Error(), "no iptables") {
			t.Fatal(err)
		}
		if free("127.0.0.1:8080") || !free("127.0.0.2:8080") || !free("127.0.0.1:7000") || len(e.Publications()) != 2 {
			t.Error("a change that was refused left something")
		}
		refuse = nil
		e.jails.Delete(jail.Inode)
		if err := e.unpublish(jail); err != nil || len(inForce) != 0 || !free("127.0.0.1:8080") || !free("127.0.0.1:9000") {
			t.Error(err, inForce)
		}
		if err := publish("8080:80"); err == nil {
			t.Error("a jail that goes publishes")
		}
	})
}

// keepDescriptors has further descriptors of a vassal's ports open until it is
// told to close them.
func (e *Emperor) keepDescriptors(t *testing.T, name string) (closeAll func()) {
	t.Helper()
	var fds []int
	for _, f := range e.ports.of[name].held {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// A port moves from one ini to another, in whatever order the two are read; of
// two that both want it the first has it.
func TestAPortMovesBetweenInisThatAreReadTogether(t *testing.T) {
	e := testEmperor(t, twoNetworks()[0])
	read := func(inis ...string) (errs []string) {
		var all []*expansion
		for i, text := range inis {
			name := []string{"blog", "shop"}[i]
			all = append(all, &expansion{Name: name, Config: goodVassal(t, name, "tuntap-device-address = auto\n"+text)})
		}
		e.claimAll(all)
		for _, x := range all {
			errs = append(errs, failures(x.Errors))
		}
		return errs
	}
	for _, step := range [][]string{{"", "publish = 8080:80"}, {"publish = 8080:80", "publish = 8081:80"}, {"", "publish = 8080:80"}} {
		if errs := read(step...); errs[0] != "" || errs[1] != "" {
			t.Errorf("%q: %q", step, errs)
		}
	}
	for _, step := range [][]string{{"publish = 8080:80", "publish = 8081:80"}, {"publish = 8081:80", "publish = 8080:80"}} { // they swap
		if errs := read(step...); errs[0] != "" || errs[1] != "" {
			t.Errorf("%q: %q", step, errs)
		}
	}
	if errs := read("publish = 9000:80", "publish = 9000:80"); errs[0] != "" || !strings.Contains(errs[1], "is already published by") {
		t.Errorf("of two that want the same: %q", errs)
	}
}
