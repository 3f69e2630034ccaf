package emperor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Published is a port of the host's, or a range of them, that leads to a
// vassal. It is of one family.
type Published struct {
	Vassal      string
	Device      string     // of the vassal's network: the router's, or the bridge
	Host        netip.Addr // unspecified: all of the host's of that family
	First, Last uint16
	Proto       uint8
	To          netip.AddrPort // where First leads; the others follow
	From        []netip.Prefix // who may come; empty: everybody
}

// publication is what is published of one jail.
type publication struct {
	jail *vassal.Jail
	list []Published // wanted
	have []Published // in force, as far as the emperor knows
	want []hostPort
	held map[hostPort]*os.File // want, and until list is in force what was wanted before
}

// publications are what the emperor publishes, by vassal. They go with the jail.
type publications struct {
	mu      sync.Mutex
	of      map[string]*publication
	parts   map[string]int // how many keys of the vault's a vassal's ports are under
	wishes  uint64         // changes of of
	granted uint64         // wishes that were put in force, or failed
	err     error          // of the last time

	turn    sync.Mutex // one change of the host at a time
	keeping sync.Mutex // in the vault; before mu, which is never held while anybody is waited for
}

// list is everything that is to be published, in an order that does not change.
// The caller has mu.
func (p *publications) list() []Published {
	all := []Published{}
	for _, name := range slices.Sorted(maps.Keys(p.of)) {
		all = append(all, p.of[name].list...)
	}
	return all
}

// settle returns when all that was wished for until now is in force. Who waits
// while the host is being changed has his wish granted together with the others'.
// Without put, as without a network, nothing is in force.
func (p *publications) settle(put func([]Published) error) error {
	if put == nil {
		return nil
	}
	p.mu.Lock()
	p.wishes++
	mine := p.wishes
	p.mu.Unlock()
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	if p.granted >= mine {
		defer p.mu.Unlock()
		return p.err
	}
	upto, all := p.wishes, p.list()
	p.mu.Unlock()
	err := put(all)
	// gofail: var portsPublished struct{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.granted, p.err = upto, err
	return err
}

// publishedBy works out what a vassal with these devices publishes, and which
// ports of the host's that takes.
func publishedBy(c *vassal.Config, links []vassal.Link) (list []Published, want []hostPort, bad *ini.Error) {
	for _, p := range c.Publish {
		var has [2]bool // by family
		for i, v6 := range []bool{false, true} {
			device, to := reachedAt(links, v6)
			if has[i] = p.Has(v6) && to.IsValid(); !has[i] {
				continue
			}
			one := Published{
				Vassal: c.Name, Device: device, Host: p.Addr, First: p.First, Last: p.Last, Proto: p.Proto,
				To: netip.AddrPortFrom(to, p.To), From: p.FromOf(v6),
			}
			if !p.Addr.IsValid() {
				one.Host = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[i]
			}
			list = append(list, one)
		}
		if !has[0] && !has[1] {
			return nil, nil, &ini.Error{Pos: p.Pos, Message: unreached(c, p, links)}
		}
		want = append(want, portsOf(p, has[0], has[1])...)
	}
	return list, want, nil
}

// reachedAt is the address of a family by which the host reaches a vassal.
func reachedAt(links []vassal.Link, v6 bool) (device string, to netip.Addr) {
	for _, l := range links {
		for _, a := range l.Addresses {
			if device := cmp.Or(l.Network, l.Bridge); device != "" && a.Addr().Is6() == v6 {
				return device, a.Addr()
			}
		}
	}
	return "", netip.Addr{}
}

// unreached says why nobody could come by what a vassal publishes.
func unreached(c *vassal.Config, p vassal.Publish, links []vassal.Link) string {
	switch c.Network {
	case vassal.HostNetwork:
		return fmt.Sprintf("publish = %s: with network = host (%s) the app listens at the host's ports itself; leave one of them out", p, c.NetworkPos)
	case vassal.NoNetwork:
		return fmt.Sprintf("publish = %s: with network = none (%s) nobody reaches the vassal; leave one of them out", p, c.NetworkPos)
	}
	for _, v6 := range []bool{false, true} {
		if _, to := reachedAt(links, v6); to.IsValid() {
			return fmt.Sprintf("publish = %s: the vassal has no address of that family, only %s; give its network one (tuntap-router-address)", p, to)
		}
	}
	return fmt.Sprintf("publish = %s: the vassal has no address that this emperor gives; write tuntap-device-address = auto, or tuntap-router-attach = all in the emperor's ini", p)
}

// publish has the ports of a jail's vassal lead to it, and no others. If that
// cannot be done, all is as before.
func (e *Emperor) publish(jail *vassal.Jail, list []Published, want []hostPort) error {
	p := &e.ports
	p.mu.Lock()
	before := p.of[jail.Name]
	if before == nil && len(list) == 0 || before.publishes(jail, list) {
		p.mu.Unlock()
		return nil
	}
	if now, ok := e.jails.Load(jail.Inode); !ok || now != jail {
		p.mu.Unlock()
		return errors.New("publish: the jail is being closed")
	}
	if e.Publish == nil {
		p.mu.Unlock()
		return errors.New("publish: this emperor has no network; write tuntap-router = DEVICE SOCKET")
	}
	held := map[hostPort]*os.File{}
	if before != nil {
		held = before.held
	}
	now := &publication{jail: jail, list: list, want: want}
	if before != nil && before.jail == jail {
		now.have = before.have
	}
	var err error
	if now.held, err = e.exchange(held, want); err != nil {
		fewer, ports := before.common(list, want)
		ours := p.inWay(jail.Name, err)
		p.mu.Unlock()
		if taken, ok := errors.AsType[*takenError](err); ok {
			taken.who = e.holderOf(taken.port)
		}
		if ours && !before.publishes(jail, fewer) { // who may wait for what this one has
			err = errors.Join(err, e.publish(jail, fewer, ports))
		}
		return err
	}
	// gofail: var portsBound struct{}
	if p.of == nil {
		p.of = map[string]*publication{}
	}
	p.of[jail.Name] = now
	p.mu.Unlock()
	e.keepPorts(jail.Name)
	// gofail: var portsKept struct{}
	err = jail.Opened(len(list) > 0)
	e.keepJail(jail)
	if err == nil {
		err = p.settle(e.Publish)
	}
	p.mu.Lock()
	if p.of[jail.Name] == now {
		if len(now.list) < len(list) { // by KeepPublished, which knows only of now
			before, err = nil, errors.Join(err, errors.New("the vassal's network is another one now"))
		}
		if now.have = list; err != nil {
			e.takeBack(now, before)
		}
		p.of[jail.Name].trim()
		if len(p.of[jail.Name].list) == 0 {
			delete(p.of, jail.Name)
		}
	}
	p.mu.Unlock()
	e.keepPorts(jail.Name)
	if err != nil {
		again := p.settle(e.Publish) // or the host would go on trying
		if again = errors.Join(again, jail.Opened(before != nil && len(before.list) > 0)); again != nil {
			e.Log.Debug("publish what was published before", "err", again)
		}
		e.keepJail(jail)
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// exchange takes the ports that are wanted beside those that are held. One that
// is in the way of another, such as 127.0.0.1's of all addresses', makes room
// for it.
func (e *Emperor) exchange(held map[hostPort]*os.File, want []hostPort) (map[hostPort]*os.File, error) {
	type number struct {
		proto uint8
		port  uint16
	}
	wanted, fresh := map[hostPort]bool{}, map[number]bool{}
	for _, h := range want {
		wanted[h] = true
		if held[h] == nil {
			fresh[number{h.Proto, h.Port}] = true
		}
	}
	var moved []hostPort
	for h, f := range held {
		if !wanted[h] && fresh[number{h.Proto, h.Port}] {
			moved = append(moved, h)
			giveWay(f)
			_ = f.Close()
			delete(held, h)
		}
	}
	got, err := bindPorts(want, held, moved)
	if err != nil {
		again, failed := bindPorts(moved, held, moved)
		if failed != nil {
			e.Log.Warn("a published port is not held any more", "err", failed)
		}
		maps.Copy(held, again)
		return nil, err
	}
	maps.Copy(got, held)
	return got, nil
}

// inWay says whether a port is taken by what another vassal publishes.
func (p *publications) inWay(vassal string, err error) bool {
	taken, ok := errors.AsType[*takenError](err)
	if !ok {
		return false
	}
	for name, b := range p.of {
		for h := range b.held {
			if name != vassal && h.Proto == taken.port.Proto && h.Port == taken.port.Port {
				return true
			}
		}
	}
	return false
}

// common is what is published and is wanted further.
func (b *publication) common(list []Published, want []hostPort) (both []Published, ports []hostPort) {
	if b == nil {
		return nil, nil
	}
	for _, p := range list {
		if slices.ContainsFunc(b.list, func(q Published) bool { return reflect.DeepEqual(p, q) }) {
			both = append(both, p)
		}
	}
	for _, h := range want {
		if slices.Contains(b.want, h) {
			ports = append(ports, h)
		}
	}
	return both, ports
}

// publishes says whether this is what the jail publishes already.
func (b *publication) publishes(jail *vassal.Jail, list []Published) bool {
	return b != nil && b.jail == jail && len(b.list) == len(list) && (len(list) == 0 || reflect.DeepEqual(b.list, list))
}

// trim gives back what is not wanted any more.
func (b *publication) trim() {
	for h, f := range b.held {
		if !slices.Contains(b.want, h) {
			giveWay(f)
			_ = f.Close()
			delete(b.held, h)
		}
	}
}

// takeBack undoes a change that was not put in force. The caller has the
// publications' mu.
func (e *Emperor) takeBack(now, before *publication) {
	if before == nil {
		before = &publication{jail: now.jail}
	}
	before.held = now.held
	e.ports.of[now.jail.Name] = before
	before.trim()
	again, err := bindPorts(before.want, before.held, before.want)
	if err != nil {
		e.Log.Warn("a published port is not held any more", "vassal", now.jail.Name, "err", err)
	}
	maps.Copy(before.held, again)
}

// unpublish ends what is published of a jail that was let go: nobody reaches
// its addresses by the host's when it returns, and others may have the ports.
func (e *Emperor) unpublish(jail *vassal.Jail) error {
	p := &e.ports
	p.mu.Lock()
	was := p.of[jail.Name]
	if was == nil || was.jail != jail {
		p.mu.Unlock()
		return nil
	}
	delete(p.of, jail.Name)
	p.mu.Unlock()
	err := p.settle(e.Publish)
	// gofail: var portsUnpublished struct{}
	closePorts(was.held)
	e.keepPorts(jail.Name)
	if err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}
	return nil
}

// KeepPublished ends what is published where it does not fit any more: in a network
// that is gone, or another one now. Its ports stay held until the
// vassal, which cannot stay as it is either, publishes anew or is gone.
func (e *Emperor) KeepPublished(fits func(Published) bool) {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	for name, b := range e.ports.of {
		had := len(b.list)
		b.list = slices.DeleteFunc(b.list, func(p Published) bool { return !fits(p) })
		if b.have = b.list; len(b.list) < had {
			e.Log.Warn("its ports are published no more: its network is gone, or another one now", "vassal", name)
		}
	}
}

// Publications are what the vassals publish, as far as this emperor knows: when
// he begins, what those do that he adopts.
func (e *Emperor) Publications() []Published {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	return e.ports.list()
}

// lowPort bounds the ports that no owner has without root (ip_unprivileged_port_start).
const lowPort = 1024

func comparePorts(a, b hostPort) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}
