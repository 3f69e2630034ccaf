package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"fiefdom/tuntap"
)

// Found returns the networks of the adopted router; none without one. Those that
// go on as they are go into Networks with the very same descriptors, their
// configuration may be another one.
func (k *Keeper) Found() []*Network {
	if k.heritage == nil {
		return nil
	}
	return slices.Collect(maps.Values(k.heritage.networks))
}

// Remove has the adopted router remove a network that it was Found to have. When
// it returns, its device and sockets are closed, here and there. Call it before Run.
func (k *Keeper) Remove(n *Network) error {
	h := k.heritage
	name := n.Config.Name
	delete(h.networks, name)
	errs := []error{n.Close(), h.wire.conn.SetReadDeadline(time.Now().Add(adoptTime))}
	err := h.wire.send(order{Remove: name})
	for removed := ""; err == nil && removed != name; {
		var r report
		files, rerr := h.wire.receive(&r)
		closeAll(files)
		removed, err = r.Removed, rerr
		if r.Error != "" {
			err = errors.New(r.Error)
		}
	}
	errs = append(errs, err, h.wire.conn.SetReadDeadline(time.Time{}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove network %s from the adopted router: %w", name, err)
	}
	return nil
}

// Dismiss ends the adopted router, if there is one that Run has not gone on with.
func (k *Keeper) Dismiss() error {
	h := k.heritage
	if h == nil {
		return nil
	}
	k.heritage = nil
	err := errors.Join(h.process.kill(), h.close())
	_, werr := h.process.wait()
	return errors.Join(err, werr)
}

// Settle tells an adopted router that all devices were handed over that shall go
// on: those that are left are closed, and their addresses free. Any other router
// needs no such word.
func (k *Keeper) Settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settled = true
	k.settle()
}

// settle is called with mu held.
func (k *Keeper) settle() {
	if !k.settled || !k.unsettled || k.wire == nil {
		return
	}
	k.unsettled = false
	if err := k.wire.send(order{Settled: true}); err != nil {
		k.Log.Debug("router: settle", "err", err) // it is on its way out
	}
}

// takeOver tells an adopted router what is different from what it has.
func (k *Keeper) takeOver(w *wire, found map[string]*Network) error {
	if err := k.adjustNetworks(w, found); err != nil {
		return err
	}
	// gofail: var routerAdjusted struct{}
	if err := k.Rejoin(); err != nil {
		k.Log.Error("a device could not be handed to the adopted router", "err", err)
	}
	// gofail: var devicesRejoined struct{}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	return nil
}

// adjustNetworks makes the router's networks ours.
func (k *Keeper) adjustNetworks(w *wire, found map[string]*Network) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != w {
		return net.ErrClosed
	}
	var added []*Network
	for _, n := range k.Networks {
		old := found[n.Config.Name]
		if old == nil || old.Device != n.Device {
			added = append(added, n)
			continue
		}
		delete(found, n.Config.Name)
		if n.Config.Reserved == nil {
			n.Config.Reserved = old.Config.Reserved // until it is told what is reserved now
		}
		if sameConfig(&n.Config, &old.Config) {
			continue // its rules keep their counters
		}
		if err := w.send(order{Update: &n.Config}); err != nil {
			return fmt.Errorf("update network %s: %w", n.Config.Name, err)
		}
	}
	for name, old := range found {
		if err := errors.Join(w.send(order{Remove: name}), old.Close()); err != nil {
			return fmt.Errorf("remove network %s: %w", name, err)
		}
	}
	for _, n := range added {
		if err := n.add(w); err != nil {
			return err
		}
	}
	k.wire, k.unsettled = w, true
	return nil
}

func sameConfig(a, b *tuntap.NetworkConfig) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}
