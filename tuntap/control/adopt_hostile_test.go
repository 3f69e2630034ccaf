package control

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

// said is one message of a router, with descriptors.
type said struct {
	report report
	fds    []int
}

// A router is a process without rights that strangers talk to. What it says to a
// new emperor is believed as far as the kernel knows it, or not at all.
func TestAdoptionOfAHostileRouter(t *testing.T) {
	host, jail, other := nettest.NewNS(t), nettest.NewNS(t), nettest.NewNS(t)
	tun0, eth0, eth1 := openDevice(t, host, "tun0"), openDevice(t, jail, "eth0"), openDevice(t, other, "eth0")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dir, err := os.MkdirTemp("", "fiefdom-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := listen(t, filepath.Join(dir, "s"))
	listener, err := descriptor(socket)
	if err != nil {
		t.Fatal(err)
	}
	zero := int(null.Fd())

	greeting := said{report: report{Hello: &hello{Protocol: protocol}}}
	config := tuntap.NetworkConfig{Name: "tun0"}
	network := func(name string, fds ...int) said {
		c := config
		c.Name = name
		return said{report{Network: &networkState{Config: c}}, fds}
	}
	good := network("tun0", tun0.FD(), listener)
	device := func(d deviceState, fds ...int) said { return said{report{Devices: []deviceState{d}}, fds} }
	blog := deviceState{Network: "tun0", Vassal: "blog", Registered: []netip.Addr{netip.MustParseAddr("10.9.0.7")}}
	end := said{report: report{Told: &told{}}}

	for _, c := range []struct {
		name string
		says []said
		ok   bool
	}{
		{"honest", []said{greeting, good, device(blog, eth0.FD()), end}, true},
		{"with events between", []said{greeting, {report: report{Identify: 3}, fds: []int{zero}}, good, {report: report{Registered: &Registration{}}}, end}, true},
		{"nothing at all", []said{greeting, end}, true},
		{"no hello", []said{good, end}, false},
		{"another version", []said{{report: report{Hello: &hello{Protocol: protocol + 1}}}, good, end}, false},
		{"half of it", []said{greeting, good}, false},
		{"told twice", []said{greeting, good, good, end}, false},
		{"a name that is not the device's", []said{greeting, network("tun1", tun0.FD(), listener), end}, false},
		{"a jail's device for the host's", []said{greeting, network("eth0", eth0.FD(), listener), end}, false},
		{"no device", []said{greeting, network("tun0", zero, listener), end}, false},
		{"no descriptors", []said{greeting, network("tun0"), end}, false},
		{"too many", []said{greeting, network("tun0", tun0.FD(), listener, listener), end}, false},
		{"253 of them", []said{greeting, network("tun0", slices.Repeat([]int{zero}, 253)...), end}, false},
		{"a device of no network", []said{greeting, device(blog, eth0.FD()), end}, false},
		{"the host's device for a vassal's", []said{greeting, good, device(blog, tun0.FD()), end}, false},
		{"a device twice", []said{greeting, good, device(blog, eth0.FD()), device(blog, eth0.FD()), end}, false},
		{"a name in two jails", []said{greeting, good, device(blog, eth0.FD()), device(blog, eth1.FD()), end}, true},
		{"a file for a device", []said{greeting, good, device(blog, zero), end}, false},
		{"a device without a descriptor", []said{greeting, good, device(blog), end}, false},
		{"two descriptors for one", []said{greeting, good, device(blog, eth0.FD(), eth0.FD()), end}, false},
		{"nobody's device", []said{greeting, good, device(deviceState{Network: "tun0"}, eth0.FD()), end}, false},
		{"a name without end", []said{greeting, good, device(deviceState{Network: "tun0", Vassal: strings.Repeat("x", 1000)}, eth0.FD()), end}, false},
		{"addresses without end", []said{greeting, good, device(deviceState{Network: "tun0", Vassal: "x", Registered: slices.Repeat(blog.Registered, 1000)}, eth0.FD()), end}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			nettest.NoLeaks(t)
			before := descriptorsIn(t, os.Getpid())
			k, stop := hostileRouter(t, filepath.Join(dir, "door"), c.says)
			err := netns.Do(host.Handle, func() error {
				devices, ok, err := k.Adopt(t.Context())
				if ok != c.ok || !ok && len(devices) > 0 {
					t.Errorf("adopted: %v, %+v", ok, devices)
				}
				for _, d := range devices {
					if d.Device != "eth0" || d.Vassal != "blog" || d.Inode == 0 {
						t.Errorf("%+v", d)
					}
					d.File.Close()
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if err := k.Dismiss(); err != nil {
				t.Error(err)
			}
			stop()
			if after := descriptorsIn(t, os.Getpid()); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

// hostileRouter is a keeper with the record of a router that says what it is told to
// say, whoever knocks.
func hostileRouter(t *testing.T, door string, says []said) (k *Keeper, end func()) {
	t.Helper()
	_ = os.Remove(door)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: door, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	reaped, spoken := make(chan struct{}), make(chan struct{})
	go func() { _ = sleep.Wait(); close(reaped) }()
	go func() {
		defer close(spoken)
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		w := &wire{conn: c}
		defer c.Close()
		for _, s := range says {
			if w.send(s.report, s.fds...) != nil {
				return
			}
		}
		if says[len(says)-1].report.Told == nil {
			return
		}
		for { // until the emperor has had enough
			if _, err := w.receive(new(order)); err != nil {
				return
			}
		}
	}()
	k = &Keeper{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Door: door, Recorded: func() (*os.File, int, error) {
		fd, err := unix.PidfdOpen(sleep.Process.Pid, 0)
		return os.NewFile(uintptr(fd), "pidfd"), sleep.Process.Pid, err
	}}
	return k, func() {
		l.Close()
		_ = sleep.Process.Kill()
		<-reaped
		<-spoken
	}
}

// A router that says nothing does not hold the emperor up for ever, nor one that
// is asked to stop meanwhile.
func TestAdoptionCanBeCancelled(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	dir := t.TempDir()
	k, end := hostileRouter(t, filepath.Join(dir, "d"), []said{{report: report{Hello: &hello{Protocol: protocol}}}, {report: report{}}})
	end()
	if _, ok, err := k.Adopt(t.Context()); ok || err == nil && k.heritage != nil {
		t.Errorf("a dead router was adopted: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "silent"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k.Door = filepath.Join(dir, "silent")
	k.Recorded = func() (*os.File, int, error) {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		return os.NewFile(uintptr(fd), "pidfd"), os.Getpid(), err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, ok, err := k.Adopt(ctx); ok || err == nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestNothingToAdopt(t *testing.T) {
	for name, k := range map[string]*Keeper{
		"no door":           {Recorded: func() (*os.File, int, error) { t.Error("it was looked for"); return nil, 0, nil }},
		"nothing on record": {Door: "/nonexistent", Recorded: func() (*os.File, int, error) { return nil, 0, nil }},
	} {
		devices, ok, err := k.Adopt(t.Context())
		if devices != nil || ok || err != nil || k.Found() != nil {
			t.Errorf("%s: %v, %v, %v", name, devices, ok, err)
		}
	}
}
