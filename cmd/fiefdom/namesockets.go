package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/responder"
	"fiefdom/internal/vault"
)

// namesKey is where the vault has the responder's sockets of a network, by their names.
const namesKey = "names/"

// asked is a network whose vassals ask for names.
type asked struct {
	device string
	at     []netip.Addr // the host's addresses in it
	pool   []netip.Prefix
	bridge bool // the kernel's
	others bool // which was there before: somebody may answer in it already
}

// namePlaces are the sockets at which they ask.
type namePlaces struct {
	mu    sync.Mutex
	found map[string]*vault.Files       // of the emperor before, by network
	open  map[string][]responder.Socket // by network
}

// findSockets takes the responder's sockets out of what a former emperor has left.
func (r *runner) findSockets(items []vault.Item) {
	for _, i := range items {
		if device, ok := strings.CutPrefix(i.Key, namesKey); ok {
			found := *i.Files
			*i.Files = vault.Files{}
			r.names.where.found[device] = &found
		}
	}
}

// takeFound takes those of a network.
func (w *namePlaces) takeFound(n *asked) (all []responder.Socket) {
	found := w.found[n.device]
	if found == nil {
		return nil
	}
	for _, s := range socketsOf(n, responder.Port) {
		fd, err := found.TakeFD(s.Name())
		if err != nil {
			continue
		}
		if s.Take(fd) != nil {
			_ = unix.Close(fd)
			continue
		}
		all = append(all, s)
	}
	return all
}

// dropFound closes what nobody has taken: its networks are not there any more.
func (r *runner) dropFound() {
	w := &r.names.where
	w.mu.Lock()
	defer w.mu.Unlock()
	for device, found := range w.found {
		found.Close()
		if len(w.open[device]) == 0 {
			r.keepSockets(device, nil)
		}
	}
	clear(w.found)
}

func (w *namePlaces) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, found := range w.found {
		found.Close()
	}
	for _, all := range w.open {
		closeSockets(all)
	}
	clear(w.open)
	return nil
}

// openNames sees to it that a network's vassals can ask for names, and says at which
// port. What there is of sockets goes on, also those of the emperor before; where the
// usual port is somebody else's, questions have to be led to the one that it says.
func (r *runner) openNames(n *asked) (port uint16, err error) {
	w := &r.names.where
	w.mu.Lock()
	defer w.mu.Unlock()
	had := slices.Concat(w.open[n.device], w.takeFound(n))
	var all []responder.Socket
	if i := slices.IndexFunc(had, func(s responder.Socket) bool { return s.Network != "" && s.Fits() == nil }); i >= 0 {
		all, err = openSockets(n, had[i].Addr.Port(), had)
	}
	if len(all) == 0 {
		all, err = r.makeSockets(n)
	}
	r.useSockets(n, all)
	for i := range had {
		if !slices.Contains(all, had[i]) {
			_ = had[i].Close()
		}
	}
	// gofail: var namesOpened struct{}
	if err != nil {
		return 0, err
	}
	return all[0].Addr.Port(), nil
}

// closeNames is for a network that is gone.
func (r *runner) closeNames(device string) {
	w := &r.names.where
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.open[device]
	r.useSockets(&asked{device: device}, nil)
	closeSockets(all)
}

// stale says whether vassals of a network cannot ask for names, or no more: its device
// is another one by now.
func (w *namePlaces) stale(device string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.open[device]
	return len(all) == 0 || slices.ContainsFunc(all, func(s responder.Socket) bool { return s.Fits() != nil })
}

// useSockets has names asked for at a network's sockets, in place of those before.
func (r *runner) useSockets(n *asked, all []responder.Socket) {
	w := &r.names.where
	changed := !slices.Equal(w.open[n.device], all)
	if w.open[n.device] = all; len(all) == 0 {
		delete(w.open, n.device)
	}
	k := r.names.keeper
	k.Change(func(f *responder.Feed) {
		f.Networks = slices.DeleteFunc(slices.Clone(f.Networks), func(o responder.Network) bool { return o.Name == n.device })
		if len(all) > 0 {
			f.Networks = append(f.Networks, n.network(all[0].Addr.Port()))
		}
	})
	if !changed {
		return
	}
	var every []responder.Socket
	for _, device := range slices.Sorted(maps.Keys(w.open)) {
		every = append(every, w.open[device]...)
	}
	k.Use(every)
	r.keepSockets(n.device, all)
}

// network is what the responder is told of it.
func (n *asked) network(port uint16) responder.Network {
	told := responder.Network{Name: n.device, Pool: n.pool, Own: n.at, Bridge: n.bridge}
	if n.others {
		told.Pool = nil // somebody else may know the names of its other addresses
	}
	if n.others && port != responder.Port {
		told.Own = nil // and answers in it: the host may well ask him
	}
	return told
}

// socketsOf are the sockets of a network: for its vassals by its device, and for
// the host's own programs.
func socketsOf(n *asked, port uint16) (all []responder.Socket) {
	for _, a := range n.at {
		for _, by := range []string{n.device, ""} {
			for _, udp := range []bool{true, false} {
				all = append(all, responder.Socket{Network: by, Addr: netip.AddrPortFrom(a, port), UDP: udp})
			}
		}
	}
	return all
}

func closeSockets(all []responder.Socket) {
	for _, s := range all {
		_ = s.Close()
	}
}

// The ports that are tried where somebody else has the usual one.
const (
	firstOther = 10053
	others     = 32
)

// makeSockets makes the sockets of a network, at another port if somebody has the
// usual one: the host's netfilter leads the questions there.
func (r *runner) makeSockets(n *asked) ([]responder.Socket, error) {
	var all []responder.Socket
	err := error(unix.EADDRINUSE)
	who := ""
	if n.others { // the kernel would let us take questions from somebody who lets others be beside him
		who = emperor.PortHolder(n.at[0], responder.Port, false)
	}
	if who == "" {
		if all, err = openSockets(n, responder.Port, nil); !errors.Is(err, unix.EADDRINUSE) {
			return all, err
		}
		who = cmp.Or(emperor.PortHolder(n.at[0], responder.Port, false), "somebody else")
	}
	if _, nerr := exec.LookPath("iptables"); nerr != nil && !n.bridge {
		return nil, fmt.Errorf("%w: %s has it; without iptables questions cannot be led to another port: install it, or let that program leave %s alone", err, who, n.device)
	}
	for port := uint16(firstOther); port < firstOther+others && errors.Is(err, unix.EADDRINUSE); port++ {
		if all, err = openSockets(n, port, nil); err == nil {
			r.log.Info("names are answered at another port, to which the vassals' questions are led", "network", n.device, "port", port, "has53", who)
		}
	}
	return all, err
}

// openSockets opens those of a network at a port that are not there yet.
func openSockets(n *asked, port uint16, there []responder.Socket) ([]responder.Socket, error) {
	all := socketsOf(n, port)
	var made []responder.Socket
	for i := range all {
		s := &all[i]
		if j := slices.IndexFunc(there, func(t responder.Socket) bool { return t.Name() == s.Name() && t.Addr == s.Addr && t.Fits() == nil }); j >= 0 {
			*s = there[j]
			continue
		}
		if err := s.Open(); err != nil {
			closeSockets(made)
			return nil, err
		}
		made = append(made, *s)
	}
	return all, nil
}

// keepSockets puts the sockets of a network into the vault: questions wait there while
// no responder runs, and vassals never find nobody.
func (r *runner) keepSockets(device string, all []responder.Socket) {
	key := namesKey + device
	if len(all) == 0 {
		if err := r.vault.Drop(key); err != nil {
			r.log.Debug("vault", "key", key, "err", err)
		}
		return
	}
	var files vault.Files
	for _, s := range all {
		if err := files.AddFD(s.Name(), s.FD); err != nil {
			files.Close()
			r.log.Warn("not kept for the next emperor", "what", key, "err", err)
			return
		}
	}
	if err := r.vault.Put(key, struct{}{}, &files, ""); err != nil {
		r.log.Warn("not kept for the next emperor", "what", key, "err", err)
	}
}

// refillSockets puts them all into a vault that is a new one.
func (r *runner) refillSockets() {
	w := &r.names.where
	w.mu.Lock()
	defer w.mu.Unlock()
	for device, all := range w.open {
		r.keepSockets(device, all)
	}
}
