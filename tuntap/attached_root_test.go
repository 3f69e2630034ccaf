package tuntap

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

func TestAttached(t *testing.T) {
	nettest.Root(t)
	ns := nettest.NewNS(t)
	var dev *Device
	ns.Do(t, func() {
		var err error
		if dev, err = OpenDevice("eth0"); err != nil {
			t.Fatal(err)
		}
	})
	defer dev.Close()
	dup := func() *os.File {
		fd, err := duplicate(dev.FD())
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "device")
	}
	f := dup()
	defer f.Close()
	name, inode, err := Attached(f)
	want, ierr := netns.Inode(ns.Handle)
	if err != nil || ierr != nil || name != "eth0" || inode != want {
		t.Errorf("%q in %d, %v; want eth0 in %d, %v", name, inode, err, want, ierr)
	}
	pair, _ := tuntest.Pair(t)
	defer pair.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	bare, err := os.OpenFile(tunPath, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	for what, f := range map[string]*os.File{"a socket": pair, "another device": null} {
		if _, _, err := Attached(f); err == nil {
			t.Errorf("%s was taken for a tun", what)
		}
	}
	if _, _, err := Attached(bare); !errors.Is(err, unix.EBADFD) {
		t.Errorf("not attached: %v", err)
	}
}
