package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
)

func (s *story) refuseClaim(ctx context.Context) (string, error) {
	if err := s.drop("thief", "[uwsgi]\ncommand = /bin/sleep infinity\ntuntap-device-address = 10.9.0.7\n"); err != nil {
		return "", err
	}
	v, err := s.await(ctx, "thief", func(v emperor.Status) error {
		if v.State != emperor.Invalid {
			return errors.New("want invalid")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	said := strings.ReplaceAll(v.Error, demoDir+"/", "")
	if !strings.Contains(said, "thief.ini:3") || !strings.Contains(said, "shop.ini") {
		return "", fmt.Errorf("its error does not say where: %s", said)
	}
	return said, nil
}

// thefts is how many packets the thief sends from shop's address.
const thefts = 20

func (s *story) refuseSpoofing(ctx context.Context) (string, error) {
	if err := s.drop("thief", "[uwsgi]\ncommand = /bin/sleep infinity\n"); err != nil {
		return "", err
	}
	jail, thief, err := s.jailOf(ctx, "thief")
	if err != nil {
		return "", err
	}
	defer jail.Close()
	shop, err := s.up(ctx, "shop", 0)
	if err != nil {
		return "", err
	}
	if err := netns.Do(jail, func() error { return steal(shop.Addresses[0], thief.Addresses[0]) }); err != nil {
		return "", fmt.Errorf("send from a stolen address: %w", err)
	}
	heard, sender, err := s.inet.letters("mine")
	if err != nil {
		return "", err
	}
	if heard > 0 || sender != demoHost.Addr().String() {
		return "", fmt.Errorf("%s arrived under shop's name; the thief's own came from %s", packets(uint64(heard)), sender)
	}
	n, err := s.dropped(ctx, thief, "spoofed", thefts)
	if err != nil {
		return "", err
	}
	if _, err := s.up(ctx, "shop", 0); err != nil {
		return "", fmt.Errorf("shop after the theft: %w", err)
	}
	if err := os.Remove(filepath.Join(demoVassals, "thief.ini")); err != nil {
		return "", err
	}
	err = until(ctx, demoPatience, func() error {
		if _, err := s.api.Get(ctx, "thief"); !errors.Is(err, emperor.ErrNotFound) {
			return errors.Join(errors.New("thief is still there"), err)
		}
		return nil
	})
	return fmt.Sprintf("%s dropped, reason spoofed; one from its own address arrived", packets(n)), err
}

// steal runs in the thief's jail with all the rights of root there: it sends
// from an address that it gives itself, and at last from its own.
func steal(stolen, own netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(stolen.String() + "/32")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(demoInet.Addr(), 9))
	send := func(from netip.Addr, text string, times int) error {
		c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), to)
		if err != nil {
			return err
		}
		defer c.Close()
		for range times {
			if _, err := c.Write([]byte(text)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := send(stolen, "stolen", thefts); err != nil {
		return err
	}
	return send(own, "mine", 1)
}
