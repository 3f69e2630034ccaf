package tuntap

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// A device behind a stream of frames has no offloads: what other vassals'
// kernels left undone must be done for it. TCP in both directions, by hash.
func TestStreamDeviceBesideOffloads(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	blogNS, _ := w.jail("blog", blog, blog6)
	shopNS := w.streamJail(shop, shop6)
	for _, to := range []netip.Addr{gateway, gateway6} {
		shopNS.Run(t, "ping", "-c", "1", "-W", "5", to.String())
	}
	transfer(t, blogNS, shopNS, netip.AddrPortFrom(shop, 8080))
	transfer(t, blogNS, shopNS, netip.AddrPortFrom(shop6, 8080))
	transfer(t, shopNS, blogNS, netip.AddrPortFrom(blog, 8080))
	transfer(t, shopNS, blogNS, netip.AddrPortFrom(blog6, 8080))
	transfer(t, w.hostNS, shopNS, netip.AddrPortFrom(shop, 8081))
}

// streamJail makes a namespace whose device speaks frames, as uWSGI's does.
func (w *realWorld) streamJail(addr, addr6 netip.Addr) *nettest.NS {
	t := w.t.(*testing.T)
	ns := nettest.NewNS(t)
	var tun *os.File
	ns.Do(t, func() {
		fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ifr, err := unix.NewIfreq("eth0")
		if err != nil {
			t.Fatal(err)
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		tun = os.NewFile(uintptr(fd), "eth0")
	})
	configure(t, ns, "eth0", netip.PrefixFrom(addr, 16), netip.PrefixFrom(addr6, 64))
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- framesOut(tun, conn) }()
	go func() { ended <- framesIn(tun, conn) }()
	t.Cleanup(func() {
		tun.Close()
		conn.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
	})
	return ns
}

func framesOut(tun io.Reader, conn io.Writer) error {
	b := make([]byte, frameHeader+1<<16)
	for {
		n, err := tun.Read(b[frameHeader:])
		if err != nil {
			return err
		}
		putHeader(b, kindData, n)
		if _, err := conn.Write(b[:frameHeader+n]); err != nil {
			return err
		}
	}
}

func framesIn(tun io.Writer, conn io.Reader) error {
	b := make([]byte, 1<<16)
	for {
		if _, err := io.ReadFull(conn, b[:frameHeader]); err != nil {
			return err
		}
		n := int(binary.LittleEndian.Uint16(b[1:]))
		if _, err := io.ReadFull(conn, b[:n]); err != nil {
			return err
		}
		if _, err := tun.Write(b[:n]); err != nil {
			return err
		}
	}
}
