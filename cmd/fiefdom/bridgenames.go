package main

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"fiefdom/emperor"
)

// bridgeNames is how the vassals of kernel's bridges come to ask for names.
type bridgeNames struct {
	open  func(*asked) (port uint16, err error)
	close func(device string)
	stale func(device string) bool

	wrong map[string]string // what has been said about bridges without names
}

// name has a bridge's vassals ask the responder, and says at which port of its
// addresses; 0: they ask the host's resolvers. The other answer is their resolv.conf.
func (k *kernelBridges) name(b *emperor.KernelBridge, resolvers []netip.Addr) (port uint16, resolv string) {
	if !b.Names {
		k.names.close(b.Device)
		return 0, hostsResolv(resolvers)
	}
	n := &asked{device: b.Device, bridge: true, others: !b.Ours}
	for _, a := range b.Addresses {
		n.at, n.pool = append(n.at, a.Addr()), append(n.pool, a.Masked())
	}
	port, err := k.names.open(n)
	if err == nil {
		delete(k.names.wrong, b.Device)
	}
	if err != nil && k.names.wrong[b.Device] != err.Error() { // it is tried again and again
		k.names.wrong[b.Device] = err.Error()
		k.log.Error("no names in this network; its vassals ask the host's resolvers", "network", b.Device, "err", err)
	}
	if err != nil {
		return 0, hostsResolv(resolvers)
	}
	return port, ownResolv(n.at)
}

// unnamed says whether a bridge's vassals should be answered, and are not.
func (k *kernelBridges) unnamed(b *emperor.KernelBridge) bool {
	return b.Names && k.names.stale(b.Device)
}

// followTime is how soon what others do to bridges is seen.
const followTime = 2 * time.Second

// follow looks whether bridges have been removed, made anew or given other addresses.
func (k *kernelBridges) follow(ctx context.Context) {
	tick := time.NewTicker(followTime)
	defer tick.Stop()
	failed := map[string]bool{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		k.mu.Lock()
		all := maps.Clone(k.known)
		k.mu.Unlock()
		for name, b := range all {
			err := k.followOne(b)
			if err != nil && !failed[name] {
				k.log.Warn("a bridge is not as it was", "bridge", name, "err", err)
			}
			failed[name] = err != nil
		}
	}
}

func (k *kernelBridges) followOne(b emperor.KernelBridge) error {
	if !k.there(b.Device) {
		k.names.close(b.Device)
		return nil
	}
	now := b
	err := k.look(&now)
	if err != nil && !b.Ours { // not all of its addresses are there any more
		now.Addresses = nil
		err = k.look(&now)
	}
	if err != nil || len(now.Addresses) == 0 || now.Ours != b.Ours {
		return err
	}
	if slices.Equal(now.Addresses, b.Addresses) && !k.unnamed(&b) {
		return nil
	}
	return k.make(now)
}
