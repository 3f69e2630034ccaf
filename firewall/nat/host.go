package nat

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// Host is this instance's part of the host's network. It is safe for
// concurrent use.
type Host struct {
	base string // of our chains' names
	log  *slog.Logger

	mu       sync.Mutex
	nets     []Network // those that are masqueraded
	switched *switched
	filters  [2]*netfilter // IPv4, IPv6; nil until needed
	// seen are the sysctls that the last reconcile went by.
	seen map[knob]string

	tick    time.Duration // of Watch
	oldIPv6 bool          // behave as on kernels that cannot forward IPv6 by device
}

// New prepares the work for an instance in the caller's network namespace; it
// changes nothing yet. StateDir is where what was switched on is remembered,
// and must exist.
func New(instance, stateDir string, log *slog.Logger) (*Host, error) {
	if instance == "" {
		return nil, errors.New("an instance needs a name")
	}
	s, err := loadSwitched(stateDir)
	if err != nil {
		return nil, err
	}
	return &Host{base: chainBase(instance), log: log, switched: s, tick: watchTick}, nil
}

// Apply makes the host's rules and forwarding be as the networks need, and is
// idempotent. What earlier networks needed and these do not is removed. A
// network without Masquerade gets nothing. The networks' devices must exist; an
// uplink that does not is waited for by Watch.
func (h *Host) Apply(nets []Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var active []Network
	for _, n := range nets {
		if err := n.check(); err != nil {
			return err
		}
		if n.Masquerade == "" {
			continue
		}
		if _, err := os.Stat(allForwarding(false).path()); err != nil {
			return fmt.Errorf("the kernel's network settings are not there: %w", err)
		}
		if v, err := deviceKnob(false, n.Device, "forwarding").value(); err != nil || v == "" {
			return errors.Join(fmt.Errorf("network %s: no such device", n.Device), err)
		}
		active = append(active, n)
	}
	h.nets = active
	for _, v6 := range []bool{false, true} {
		if err := h.start(v6); err != nil {
			return err
		}
	}
	return h.reconcile()
}

// start gets one family ready, or removes what is left of it.
func (h *Host) start(v6 bool) error {
	if !h.needs(v6) {
		return h.removeFamily(v6)
	}
	if v6 && !hasIPv6() {
		return errors.New("a pool is of IPv6, which the kernel does not have; remove the pool's address, or start without ipv6.disable=1")
	}
	f, err := h.filter(v6)
	if err != nil {
		return err
	}
	others, err := f.guards(h.base + "-fwd")
	if err != nil {
		return err
	}
	return h.adoptGuards(v6, others)
}

// Remove takes away all chains and jumps of this instance, also those of one
// that was killed. Forwarding stays on: others may rely on it by now.
func (h *Host) Remove() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nets = nil
	return errors.Join(h.removeFamily(false), h.removeFamily(true))
}

// Forwarding lists, as lines for sysctl.conf(5), what this instance has
// switched on since the boot and what is still so, for whoever wants it off.
func (h *Host) Forwarding() ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for k, set := range h.switched.set {
		now, err := k.value()
		if err != nil {
			return nil, err
		}
		if now == set {
			lines = append(lines, fmt.Sprintf("%s = %s", k, set))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func (h *Host) removeFamily(v6 bool) error {
	if v6 && !hasIPv6() {
		return nil
	}
	f, err := h.filter(v6)
	if errors.Is(err, errNoIPTables) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.remove(buildChains(h.base, v6, nil, nil))
}

func (h *Host) needs(v6 bool) bool {
	return slices.ContainsFunc(h.nets, func(n Network) bool {
		_, ok := ofFamily(&n, v6, nil)
		return ok
	})
}

func (h *Host) filter(v6 bool) (*netfilter, error) {
	i := 0
	if v6 {
		i = 1
	}
	if h.filters[i] == nil {
		f, err := newNetfilter(v6)
		if err != nil {
			return nil, err
		}
		h.filters[i] = f
	}
	return h.filters[i], nil
}

// reconcile compares the host with what the networks need and changes what
// differs: first the rules, with the guards, and then the forwarding.
func (h *Host) reconcile() error {
	h.seen = map[knob]string{}
	for _, v6 := range []bool{false, true} {
		if !h.needs(v6) {
			continue
		}
		if err := h.reconcileFamily(v6); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) reconcileFamily(v6 bool) error {
	var own []string
	for _, n := range h.nets {
		own = append(own, n.Device)
	}
	sides, err := h.sides(v6, own)
	if err != nil {
		return err
	}
	devices := map[string]bool{}
	for _, s := range sides {
		devices[s.device] = true
		for _, uplink := range s.uplinks {
			devices[uplink] = true
		}
	}
	names := slices.Sorted(maps.Keys(devices))
	plan, err := h.planForwarding(v6, names)
	if err != nil {
		return err
	}
	guards, err := h.guards(v6, own)
	if err != nil {
		return err
	}
	f, err := h.filter(v6)
	if err != nil {
		return err
	}
	before := f.text
	repaired, err := f.ensure(buildChains(h.base, v6, sides, guards))
	if err != nil {
		return err
	}
	if f.text != before {
		h.log.Info("wrote firewall rules", "chain", h.base, "ipv6", v6, "devices", names, "guarded", guards)
	}
	if repaired {
		h.log.Warn("put back firewall rules that somebody removed or changed", "chain", h.base, "ipv6", v6)
	}
	for _, s := range plan {
		h.log.Info("switch on forwarding", "sysctl", s.knob.String(), "value", s.value)
		if err := s.knob.set(s.value); err != nil {
			return err
		}
	}
	// gofail: var forwardingOn struct{}
	return h.remember(v6, names)
}

// sides are the networks of one family with their uplinks of this moment.
func (h *Host) sides(v6 bool, own []string) (sides []side, err error) {
	var auto []string
	if slices.ContainsFunc(h.nets, func(n Network) bool { return n.Masquerade == Auto }) {
		if auto, err = defaultDevices(v6, own); err != nil {
			return nil, err
		}
	}
	for _, n := range h.nets {
		uplinks := auto
		if n.Masquerade != Auto {
			uplinks = []string{n.Masquerade}
		}
		if s, ok := ofFamily(&n, v6, uplinks); ok {
			sides = append(sides, s)
		}
	}
	return sides, nil
}

// remember reads the sysctls that decide about the plan and the guards, so
// that drifted can tell cheaply whether to look again.
func (h *Host) remember(v6 bool, devices []string) (err error) {
	knobs := []knob{allForwarding(v6)}
	for _, dev := range devices {
		knobs = append(knobs, forwardingOf(v6, dev))
	}
	for _, k := range knobs {
		if h.seen[k], err = k.value(); err != nil {
			return err
		}
	}
	return nil
}

// drifted reports whether a sysctl is not as the last reconcile left it.
func (h *Host) drifted() (bool, error) {
	for k, want := range h.seen {
		if v, err := k.value(); err != nil || v != want {
			return true, err
		}
	}
	return false, nil
}
