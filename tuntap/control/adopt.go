package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/tuntap"
)

// Adopted is a device that a former emperor handed to the router: a vassal's, in
// the network namespace of its jail.
type Adopted struct {
	Network, Vassal, Device string

	Inode      uint64   // of the jail's network namespace
	File       *os.File // a duplicate of the device; the receiver's
	Registered []netip.Addr
}

// adoptTime bounds how long a router may take to tell what it has.
const adoptTime = 20 * time.Second

// Bounds of what a router may tell.
const (
	maxTold       = 1 << 16 // devices, and networks
	maxToldAddrs  = 64      // of one device
	maxVassalName = 255
)

// heritage is what Adopt found: a router, until Run goes on with it, and the
// networks that it has.
type heritage struct {
	wire     *wire
	process  *process
	networks map[string]*Network
	made     told // how it was started
}

// Adopt takes over the router that a former emperor of the instance left. Call it
// before Run, which goes on with that router instead of starting one, in the
// host's network namespace. ok is false when there is none, or none that this
// binary can talk to: then the caller ends it and starts afresh.
//
// The networks are in Found: those that are as they shall be go into Networks,
// the others are to be removed. The devices are the router's word, checked as far
// as the kernel knows them; whose they are is for the caller to compare with his
// records. Those that are handed over again before Settle go on as if
// nothing had been, the others are closed by it.
func (k *Keeper) Adopt(ctx context.Context) (devices []Adopted, ok bool, err error) {
	if k.Door == "" || k.Recorded == nil {
		return nil, false, nil
	}
	pidfd, pid, err := k.Recorded()
	if err != nil || pidfd == nil {
		return nil, false, err
	}
	h := &heritage{process: stranger(pid, pidfd), networks: map[string]*Network{}}
	if devices, err = h.take(ctx, k.Door); err == nil {
		k.heritage = h
		k.Log.Info("router adopted", "pid", pid, "networks", len(h.networks), "devices", len(devices))
		if want := (told{Threads: max(1, k.Threads), BusyPoll: k.BusyPoll}); h.made != want {
			k.Log.Warn("the adopted router keeps its threads and polling until it is started again",
				"threads", h.made.Threads, "wanted", want.Threads, "poll", h.made.BusyPoll, "wanted-poll", want.BusyPoll)
		}
		return devices, true, nil
	}
	for _, d := range devices {
		err = errors.Join(err, d.File.Close())
	}
	err = errors.Join(err, h.close(), pidfd.Close())
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	k.Log.Warn("the former emperor's router cannot be taken over", "pid", pid, "err", err)
	return nil, false, nil
}

// take talks to the router behind the door. What it returns with an error is to
// be closed all the same.
func (h *heritage) take(ctx context.Context, door string) (devices []Adopted, err error) {
	ctx, cancel := context.WithTimeout(ctx, adoptTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", door)
	if err != nil {
		return nil, err
	}
	h.wire = &wire{conn: c.(*net.UnixConn), patience: sendTime}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
	}()
	var r report
	files, err := h.wire.receive(&r)
	closeAll(files)
	switch {
	case err != nil:
		return nil, fmt.Errorf("wait for its hello: %w", err)
	case r.Hello == nil || r.Hello.Protocol != protocol:
		return nil, fmt.Errorf("it speaks another version of our protocol: %+v", r.Hello)
	case r.Hello.PID != h.process.pid:
		return nil, fmt.Errorf("process %d answers at its door", r.Hello.PID)
	}
	if err := errors.Join(h.wire.send(order{Take: protocol}), h.wire.send(order{Tell: true})); err != nil {
		return nil, err
	}
	own, err := netns.Own()
	if err != nil {
		return nil, err
	}
	told := telling{heritage: h, own: own, seen: map[place]bool{}}
	for err == nil && !told.complete {
		var r report
		if files, err = h.wire.receive(&r); err != nil {
			closeAll(files)
			break
		}
		err = told.hear(&r, files)
	}
	return told.devices, err
}

// close gives up what was found.
func (h *heritage) close() error {
	var errs []error
	for _, n := range h.networks {
		errs = append(errs, n.Close())
	}
	if h.wire != nil {
		_ = h.wire.conn.Close() // once more, perhaps
	}
	return errors.Join(errs...)
}

// Close closes the device and the sockets here; a router goes on with its own.
func (n *Network) Close() error {
	errs := []error{n.Device.Close()}
	for _, f := range []*os.File{n.Listener, n.Stats, n.Gateway} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// place is where a device is: there is one of a name in a namespace.
type place struct {
	namespace uint64
	device    string
}

// telling is what a router has told so far. It is a process without rights that
// reads what strangers send, so its word is checked.
type telling struct {
	*heritage
	own      uint64 // the inode of our network namespace
	devices  []Adopted
	seen     map[place]bool
	complete bool
}

// hear takes a report and its files.
func (t *telling) hear(r *report, files []*os.File) error {
	switch {
	case r.Network != nil:
		return t.hearNetwork(r.Network, files)
	case len(r.Devices) > 0:
		return t.hearDevices(r.Devices, files)
	}
	closeAll(files)
	if r.Told != nil { // others are events, which tell nothing that is not told
		t.made, t.complete = *r.Told, true
	}
	return nil
}

func (t *telling) hearNetwork(s *networkState, files []*os.File) error {
	name := s.Config.Name
	if len(files) != descriptorsOf(s.Stats, s.Gateway) || t.networks[name] != nil || len(t.networks) == maxTold {
		closeAll(files)
		return fmt.Errorf("network %.20q: told twice, or with %d descriptors", name, len(files))
	}
	found, namespace, err := tuntap.Attached(files[0])
	if err == nil && (found != name || namespace != t.own) {
		err = fmt.Errorf("network %.20q: it came with device %q of another place", name, found)
	}
	if err != nil {
		closeAll(files)
		return err
	}
	n := &Network{Config: s.Config, Listener: files[1]}
	if s.Stats {
		n.Stats = files[2]
	}
	if s.Gateway {
		n.Gateway = files[len(files)-1]
	}
	if n.Device, err = tuntap.NewDevice(name, files[0]); err != nil {
		closeAll(files)
		return err
	}
	t.networks[name] = n
	return nil
}

func (t *telling) hearDevices(list []deviceState, files []*os.File) error {
	if len(list) != len(files) || len(t.devices)+len(list) > maxTold {
		closeAll(files)
		return fmt.Errorf("%d devices came with %d descriptors", len(list), len(files))
	}
	for i, s := range list {
		if err := t.hearDevice(s, files[i]); err != nil {
			closeAll(files[i:])
			return err
		}
	}
	return nil
}

func (t *telling) hearDevice(s deviceState, f *os.File) error {
	device, namespace, err := tuntap.Attached(f)
	if errors.Is(err, unix.EBADFD) {
		return f.Close() // its namespace died, and the router is about to see that
	}
	at := place{namespace, device}
	switch {
	case err != nil:
		return fmt.Errorf("device of vassal %.50q: %w", s.Vassal, err)
	case t.networks[s.Network] == nil || s.Vassal == "" || len(s.Vassal) > maxVassalName || len(s.Registered) > maxToldAddrs:
		return fmt.Errorf("device %q of vassal %.50q in network %.20q: it makes no sense", device, s.Vassal, s.Network)
	case namespace == t.own || t.seen[at]:
		return fmt.Errorf("device %q of vassal %.50q: it is the host's, or told twice", device, s.Vassal)
	}
	t.seen[at] = true
	t.devices = append(t.devices, Adopted{
		Network: s.Network, Vassal: s.Vassal, Device: device, Inode: namespace, File: f, Registered: s.Registered,
	})
	return nil
}
