package nat

import (
	"errors"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"
)

// Publish makes these ports of the host lead to vassals, all in place of those
// before, and is idempotent. An emperor calls it after Apply, also if there is
// nothing to publish: until then, what a former one published goes on. A network
// whose device somebody removed keeps its rules, which lead nowhere meanwhile, and
// is in nobody else's way. If it fails, Watch tries again.
func (h *Host) Publish(all []Published) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range all {
		if err := p.check(h.nets); err != nil {
			return err
		}
	}
	if err := hasSettings(); err != nil {
		return err
	}
	before, first := h.published, !h.asked
	for _, v6 := range families {
		i := index(v6)
		left, err := h.inherited(v6)
		if err != nil {
			return err
		}
		needed := h.needs(v6)
		if left || len(ofKind(all, v6, 0)) > 0 {
			h.opened[i] = true
		}
		h.behind[i] = h.behind[i] || first || !needed && h.opened[i]
		if f := h.filters[i]; left && f != nil {
			f.forget() // what was kept is to be looked at
		}
	}
	h.published, h.asked = slices.Clone(all), true
	var failed error
	for _, v6 := range families {
		i := index(v6)
		changed := !reflect.DeepEqual(ofKind(before, v6, 0), ofKind(all, v6, 0))
		if !h.behind[i] && !changed {
			continue
		}
		whole := h.behind[i]
		h.behind[i] = true
		if err := h.catchUp(v6, whole); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		h.settle(v6)
	}
	return failed
}

// catchUp makes one family be as it should. Where that is not only about the
// ports, it begins with what start does, and looks at all.
func (h *Host) catchUp(v6, whole bool) error {
	if whole {
		if err := h.start(v6); err != nil {
			return err
		}
	}
	if h.needs(v6) {
		if err := h.reconcileFamily(v6, whole); err != nil {
			return err
		}
	}
	h.behind[index(v6)] = false
	return nil
}

// settle ends the UDP flows that contradict what is published. Those that it
// cannot end do so by themselves, when their senders pause.
func (h *Host) settle(v6 bool) {
	was, now := h.settled[index(v6)], ofKind(h.published, v6, unix.IPPROTO_UDP)
	if len(was)+len(now) == 0 || reflect.DeepEqual(was, now) {
		return
	}
	if err := h.forgetFlows(v6); err != nil {
		h.log.Warn("cannot forget flows to ports that are published otherwise now", "ipv6", v6, "err", err)
		return
	}
	h.settled[index(v6)] = now
}

// ofKind picks those of a family, and of a protocol unless it is 0.
func ofKind(list []Published, v6 bool, proto uint8) (some []Published) {
	for _, p := range list {
		if p.v6() == v6 && (proto == 0 || p.Proto == proto) {
			some = append(some, p)
		}
	}
	return some
}

// publishes reports whether ports of a network's vassals are published.
func (h *Host) publishes(device string, v6 bool) bool {
	return slices.ContainsFunc(h.published, func(p Published) bool { return p.Device == device && p.v6() == v6 })
}
