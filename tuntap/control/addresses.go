package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"fiefdom/internal/dump"
	"fiefdom/tuntap"
)

// RefreshAddresses tells the router which addresses its devices and the host
// have now, by whatever means they got them.
func (k *Keeper) RefreshAddresses() error {
	links, err := dump.Links()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := dump.Addrs(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var host []netip.Addr
	own := map[string][]netip.Addr{}
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		host = append(host, addr)
		name := names[a.LinkIndex]
		own[name] = append(own[name], addr)
	}
	slices.SortFunc(host, netip.Addr.Compare)
	for _, n := range k.Networks {
		mine := own[n.Config.Name]
		slices.SortFunc(mine, netip.Addr.Compare)
		if slices.Equal(mine, n.Config.Own) && slices.Equal(host, n.Config.Host) {
			continue
		}
		if err := k.Change(n.Config.Name, func(c *tuntap.NetworkConfig) { c.Own, c.Host = mine, host }); err != nil {
			return err
		}
	}
	return nil
}

// FollowAddresses refreshes the addresses whenever the kernel says that they
// changed, until ctx is done. The kernel ends a subscription that could not
// keep up with it; then there is a new one.
func (k *Keeper) FollowAddresses(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := k.followOnce(ctx); err != nil {
			k.Log.Warn("addresses; subscribing again", "err", err)
		}
		select {
		case <-time.After(refreshAgain):
		case <-ctx.Done():
		}
	}
	return nil
}

// Changes come in bunches, and a list that changes while it is read is read again.
const (
	refreshSettle = 10 * time.Millisecond
	refreshAgain  = 200 * time.Millisecond
)

func (k *Keeper) followOnce(ctx context.Context) error {
	updates := make(chan netlink.AddrUpdate, 64)
	done := make(chan struct{})
	if err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: func(err error) { k.Log.Debug("follow addresses", "err", err) },
	}); err != nil {
		return fmt.Errorf("follow addresses: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // its sender ends only when it can send
		}
	}()
	settle := time.NewTimer(0) // once now: a change may have come before the subscription
	defer settle.Stop()
	for {
		select {
		case _, ok := <-updates:
			if !ok {
				return errors.New("the kernel ended the subscription")
			}
			settle.Reset(refreshSettle)
		case <-settle.C:
			if err := k.RefreshAddresses(); err != nil {
				k.Log.Error("addresses", "err", err)
				settle.Reset(refreshAgain)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
