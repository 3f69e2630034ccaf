package nat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// Host is this instance's part of the host's network. It is safe for
// concurrent use.
type Host struct {
	base string // of our chains' names
	log  *slog.Logger

	mu   sync.Mutex
	nets []Network
	// published is what Publish was given last; until its first call, what a
	// former emperor published is left as it is.
	published []Published
	asked     bool // Publish has been called
	// opened says, for IPv4 and IPv6, that something was published at some time:
	// forwarding stays on from then on, and so do the guards until Remove.
	opened [2]bool
	// behind says that a family may not be as it should, since that failed.
	behind [2]bool
	// settled are the UDP ports that no flow contradicts any more.
	settled  [2][]Published
	switched *switched
	filters  [2]*netfilter // IPv4, IPv6; nil until needed
	// seen are the sysctls that the last reconcile went by.
	seen map[knob]string

	oldIPv6 bool // behave as on kernels that cannot forward IPv6 by device
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
	return &Host{base: chainBase(instance), log: log, switched: s}, nil
}

// Apply makes the host's rules and forwarding be as the networks need, and is
// idempotent. What earlier networks needed and these do not is removed. A
// network without Masquerade gets nothing as long as nothing is published. The
// devices of new networks must exist; one that has gone since is its own loss. An
// uplink that does not exist is waited for by Watch.
func (h *Host) Apply(nets []Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nets {
		if err := n.check(); err != nil {
			return err
		}
		if n.Masquerade == "" || slices.ContainsFunc(h.nets, func(old Network) bool { return old.Device == n.Device && old.Masquerade != "" }) {
			continue
		}
		if err := n.exists(); err != nil {
			return err
		}
	}
	h.nets = nets
	return h.update()
}

// families are IPv4 and IPv6, as they are told apart here.
var families = []bool{false, true}

// update gets the families ready that are needed, and makes the host be so.
func (h *Host) update() error {
	h.behind = [2]bool{true, true}
	return h.reconcile()
}

// start gets one family ready, or removes what is left of it.
func (h *Host) start(v6 bool) error {
	if !h.needs(v6) {
		if left, err := h.inherited(v6); left || err != nil {
			return err
		}
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
	err := errors.Join(h.removeFamily(false), h.removeFamily(true))
	h.nets, h.published, h.opened = nil, nil, [2]bool{}
	h.behind = [2]bool{}
	return err
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
	if err := h.closeLoopback(&plan{v6: v6}); err != nil {
		return err
	}
	f, err := h.filter(v6)
	if errors.Is(err, errNoIPTables) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.remove(h.base)
}

func (h *Host) needs(v6 bool) bool {
	return h.opened[index(v6)] || slices.ContainsFunc(h.nets, func(n Network) bool {
		s, ok := ofFamily(&n, v6, nil)
		return ok && (s.masquerade || h.publishes(n.Device, v6) || len(s.redirects()) > 0)
	})
}

// index is a family's place where there is one of each.
func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func (h *Host) filter(v6 bool) (*netfilter, error) {
	i := index(v6)
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
	for _, v6 := range families { // all of them, before any forwards
		if h.behind[index(v6)] {
			if err := h.start(v6); err != nil {
				return err
			}
		}
	}
	for _, v6 := range families {
		if h.needs(v6) {
			if err := h.reconcileFamily(v6, true); err != nil {
				return err
			}
			h.settle(v6)
		}
		h.behind[index(v6)] = false
	}
	return nil
}

// reconcileFamily looks only at what should be otherwise than before, unless it
// is to look at all.
func (h *Host) reconcileFamily(v6, all bool) error {
	left, err := h.inherited(v6)
	if err != nil {
		return err
	}
	p := plan{v6: v6, keep: left, published: ofKind(h.published, v6, 0), redirects: h.redirects(v6)}
	if p.sides, err = h.sides(v6, left); err != nil {
		return err
	}
	names, err := h.forwarders(&p)
	if err != nil {
		return err
	}
	on, err := h.planForwarding(v6, names)
	if err != nil {
		return err
	}
	if err := h.switched.forgetGone(v6); err != nil {
		return err
	}
	if p.guards, err = h.guards(v6); err != nil {
		return err
	}
	f, err := h.filter(v6)
	if err != nil {
		return err
	}
	if !left {
		if err := h.closeLoopback(&p); err != nil {
			return err
		}
	}
	wrote, repaired, err := f.ensure(h.base, buildChains(h.base, &p), left, all)
	if err != nil {
		return err
	}
	if wrote {
		level := slog.LevelInfo
		if !all { // vassals come and go
			level = slog.LevelDebug
		}
		h.log.Log(context.Background(), level, "wrote firewall rules", "chain", h.base, "ipv6", v6, "devices", names, "guarded", p.guards, "published", len(p.published))
	}
	if repaired {
		h.log.Warn("put back firewall rules that somebody removed or changed", "chain", h.base, "ipv6", v6)
	}
	for _, s := range on {
		h.log.Info("switch on forwarding", "sysctl", s.knob.String(), "value", s.value)
		if err := s.knob.set(s.value); err != nil {
			if now, gone := s.knob.value(); gone == nil && now == "" {
				continue // the device went meanwhile: it forwards nothing
			}
			return err
		}
	}
	// gofail: var forwardingOn struct{}
	if !left {
		if err := h.openLoopback(&p); err != nil {
			return err
		}
	}
	return h.remember(&p, names)
}

// masqueraded are the devices of networks that may send wherever they like.
func (h *Host) masqueraded() (devices []string) {
	for _, n := range h.nets {
		if n.Masquerade != "" {
			devices = append(devices, n.Device)
		}
	}
	return devices
}

// sides are the networks of one family that need something, with their uplinks
// of this moment. What is left of a former emperor is taken for all that can be.
func (h *Host) sides(v6, left bool) (sides []side, err error) {
	var own, auto []string
	for _, n := range h.nets {
		own = append(own, n.Device)
	}
	if slices.ContainsFunc(h.nets, func(n Network) bool { return n.Masquerade == Auto }) {
		if auto, err = defaultDevices(v6, own); err != nil {
			return nil, err
		}
	}
	for _, n := range h.nets {
		var uplinks []string
		switch n.Masquerade {
		case "":
		case Auto:
			uplinks = auto
		default:
			uplinks = []string{n.Masquerade}
		}
		s, ok := ofFamily(&n, v6, uplinks)
		if !ok {
			continue
		}
		s.published = left || h.publishes(n.Device, v6)
		s.loopback = left || slices.ContainsFunc(h.published, func(p Published) bool {
			return p.Device == n.Device && p.v6() == v6 && p.byLoopback()
		})
		if !s.masquerade && !s.published {
			continue
		}
		if !v6 {
			on, err := hasLocalnet(s.device)
			if err != nil {
				return nil, err
			}
			s.localnet = on || s.loopback
		}
		sides = append(sides, s)
	}
	return sides, nil
}

// redirects are the rules of one family for names that are answered elsewhere
// than at port 53.
func (h *Host) redirects(v6 bool) (rules []string) {
	for _, n := range h.nets {
		if s, ok := ofFamily(&n, v6, nil); ok {
			rules = append(rules, s.redirects()...)
		}
	}
	return rules
}

// remember reads the sysctls that decide about the plan and the guards, so
// that drifted can tell cheaply whether to look again.
func (h *Host) remember(p *plan, devices []string) (err error) {
	knobs := []knob{allForwarding(p.v6), routeLocalnet("all")}
	for _, dev := range devices {
		knobs = append(knobs, forwardingOf(p.v6, dev))
	}
	for _, s := range p.sides {
		knobs = append(knobs, routeLocalnet(s.device))
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
