package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fiefdom/emperor"
	"fiefdom/tuntap"
	"fiefdom/tuntap/control"
)

// statsMode is the mode of a socket where somebody may look: root.
const statsMode = 0o600

// statsNetwork is how an address where somebody may look is listened on.
func statsNetwork(address string) string {
	if strings.Contains(address, ":") && !filepath.IsAbs(address) {
		return "tcp"
	}
	return "unix"
}

// adoptRouter takes over the router that a killed emperor has left, with or
// without vassals. Devices of jails come from the vault, too.
func (r *runner) adoptRouter(ctx context.Context, orphans *emperor.Orphans) (*emperor.Orphans, error) {
	if r.config.Orphans == emperor.KillOrphans {
		return orphans, nil
	}
	devices, ok, err := r.keeper.Adopt(ctx)
	for _, d := range devices {
		err = errors.Join(err, d.File.Close())
	}
	if !ok || err != nil {
		return orphans, err
	}
	if orphans == nil {
		orphans = new(emperor.Orphans)
	}
	orphans.Router = true
	for _, n := range r.keeper.Found() {
		for _, path := range unixNames(n) {
			if filepath.Dir(path) == filepath.Clean(r.instance.Runtime) {
				orphans.Sockets = append(orphans.Sockets, filepath.Base(path))
			}
		}
	}
	return orphans, nil
}

// removeNetworks has an adopted router remove the networks that the ini has no
// more, or has otherwise: with other addresses, or other sockets.
func (r *runner) removeNetworks() error {
	for _, n := range r.keeper.Found() {
		i := slices.IndexFunc(r.networks, func(o tuntap.NetworkOptions) bool { return o.Device == n.Config.Name })
		if i >= 0 && fits(&r.networks[i], n) {
			continue
		}
		r.log.Info("network of the former emperor removed", "network", n.Config.Name)
		sockets := unixNames(n)
		if err := r.keeper.Remove(n); err != nil {
			return err
		}
		for _, path := range sockets {
			if err := remove(path); err != nil {
				return err
			}
		}
	}
	if len(r.networks) == 0 {
		return r.keeper.Dismiss()
	}
	return nil
}

// fits says whether a network of an adopted router can go on as the ini's.
func fits(o *tuntap.NetworkOptions, n *control.Network) bool {
	return slices.Equal(o.Pool(), n.Config.Pool) && addressed(o, n.Config.Own) && control.Bound(n.Listener, "unix", o.Socket) &&
		reusable(n.Stats, o.Stats, statsNetwork(o.Stats)) && reusable(n.Gateway, gatewayText(o.Gateway), "udp4")
}

// addressed says whether the device has the ini's addresses, and no others of the pool.
func addressed(o *tuntap.NetworkOptions, own []netip.Addr) bool {
	for _, a := range o.Addresses {
		if !slices.Contains(own, a.Addr()) {
			return false
		}
	}
	return !slices.ContainsFunc(own, func(a netip.Addr) bool {
		return slices.ContainsFunc(o.Addresses, func(p netip.Prefix) bool { return p.Contains(a) && p.Addr() != a }) &&
			!slices.ContainsFunc(o.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// reusable says whether f is the socket of an address, where there is to be one.
func reusable(f *os.File, address, network string) bool {
	if f == nil || address == "" {
		return f == nil && address == ""
	}
	return control.Bound(f, network, address)
}

func gatewayText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// unixNames are the paths of a network's unix sockets that are theirs.
func unixNames(n *control.Network) (paths []string) {
	for _, f := range []*os.File{n.Listener, n.Stats} {
		if path := control.UnixName(f); path != "" && control.Bound(f, "unix", path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// findNetwork returns the network of an adopted router that goes on as the ini's
// one; nil: there is none. What its maker would remove at the end is removed.
func (r *runner) findNetwork(o *tuntap.NetworkOptions) (*control.Network, error) {
	for _, n := range r.keeper.Found() {
		if n.Config.Name != o.Device {
			continue
		}
		found := &control.Network{Device: n.Device, Listener: n.Listener, Stats: n.Stats, Gateway: n.Gateway}
		r.later(found.Close)
		for path, mode := range map[string]uint32{o.Socket: r.config.SocketMode, o.Stats: statsMode} {
			if path == "" || path == o.Stats && statsNetwork(path) != "unix" {
				continue
			}
			r.later(func() error {
				if r.leaves {
					return nil
				}
				return os.Remove(path)
			})
			if err := os.Chmod(path, fs.FileMode(mode)); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
		return found, nil
	}
	return nil, nil
}
