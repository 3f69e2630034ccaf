package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"fiefdom/tuntap"
)

// Network is what the keeper holds of one network for all routers to come.
type Network struct {
	Config   tuntap.NetworkConfig
	Device   *tuntap.Device // the host's: never read here, and not in Go's poller, which every packet would wake
	Listener *os.File       // the listening socket
	Stats    *os.File       // the stats server's listening socket; nil: none
	Gateway  *os.File       // the UDP socket towards other routers; nil: none
}

// Keeper keeps a router process running. Set the fields, then Run.
type Keeper struct {
	Log      *slog.Logger
	Networks []*Network
	Threads  int           // that move packets; 0: one
	BusyPoll time.Duration // of each of them; 0: none
	UID, GID int           // the router's own
	Cgroup   *os.File      // the directory that the router is cloned into; nil: ours

	// Door is the path of the unix socket by which the next emperor reaches a
	// router that has lost this one; empty: there is none.
	Door string
	// Recorded opens the router that a former emperor has put on record, as pidfd.Open does; nil: none lives.
	Recorded func() (process *os.File, pid int, err error)

	Identify   func(pidfd *os.File) (vassal string) // whose process is it; empty: nobody's
	Registered func(Registration)
	Closed     func(Closing)
	Rejoin     func() error // hands every jail's devices to the new router
	Started    func(pid int) error

	mu       sync.Mutex
	current  *wire // of the router that lives; nil: none
	wire     *wire // the same, once it knows its networks
	pid      int
	leads    sync.WaitGroup
	asked    uint64
	answers  map[uint64]chan *report
	counting *counting // the snapshot that is asked for; nil: none

	heritage  *heritage // what Run begins with; nil: nothing
	settled   bool      // the emperor said so
	unsettled bool      // the router waits for that
}

// Run starts the router, or goes on with the adopted one, and starts it again
// whenever it ends, until ctx is done; then it ends the router. ready is called
// once, when the first router serves. An error means that the first start failed.
func (k *Keeper) Run(ctx context.Context, ready func()) error {
	k.answers = map[uint64]chan *report{}
	defer k.leads.Wait()
	ready = sync.OnceFunc(ready)
	young := 0 // short lives in a row
	for first := true; ; {
		began, adopted := time.Now(), k.heritage != nil
		err := k.once(ctx, ready)
		if ctx.Err() != nil {
			return nil
		}
		if first && errors.Is(err, errStart) && !adopted {
			return err
		}
		first = first && adopted
		lasted := time.Since(began)
		k.Log.Error("router ended; starting it again", "err", err, "lasted", lasted.Round(time.Millisecond))
		if young++; lasted >= crashLoop {
			young = 0
		}
		if young > crashes {
			select {
			case <-time.After(crashLoop):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// A router that ends soon after its start is started again at once a few times:
// its death may be an accident. Then crashLoop slows the restarts down.
const (
	crashLoop = 500 * time.Millisecond
	crashes   = 5
)

var errStart = errors.New("start the router")

// begin starts a router, or goes on with the adopted one. lead tells it what it
// needs to know.
func (k *Keeper) begin(served func()) (w *wire, p *process, lead func() error, err error) {
	if h := k.heritage; h != nil {
		k.heritage = nil
		return h.wire, h.process, func() error {
			err := k.takeOver(h.wire, h.networks)
			served() // or it will when all is settled
			return err
		}, nil
	}
	w, theirs, err := newPair()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", errStart, err)
	}
	started, err := k.start(theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", errStart, errors.Join(err, w.conn.Close()))
	}
	w.patience = sendTime
	return w, child(started), func() error { return k.lead(w) }, nil
}

// once is the life of one router process, or what is left of it.
func (k *Keeper) once(ctx context.Context, ready func()) error {
	serving, ended := make(chan struct{}), make(chan struct{})
	served := sync.OnceFunc(func() { close(serving) })
	w, process, lead, err := k.begin(served)
	if err != nil {
		return err
	}
	// gofail: var routerStarted struct{}
	k.mu.Lock()
	k.current, k.pid = w, process.pid
	k.mu.Unlock()
	if err := k.Started(process.pid); err != nil {
		k.Log.Warn("record the router", "err", err)
	}

	var reader sync.WaitGroup
	reader.Go(func() {
		k.read(w, served)
		_ = process.kill() // nobody can talk to it any more
	})
	// Not waited for here: a device that is being handed over when the router
	// dies waits for an answer, and the next router is who gives it.
	k.leads.Go(func() {
		if err := lead(); err != nil {
			k.Log.Warn("router does not come up; ending it", "err", err)
			_ = process.kill()
			return
		}
		select {
		case <-serving:
			ready()
		case <-ended:
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = process.kill() })
	defer stop()
	how, err := process.wait()
	close(ended)
	k.forget()
	_ = w.conn.Close()
	reader.Wait()
	select {
	case <-serving:
		return errors.Join(err, errors.New(how))
	default:
		return fmt.Errorf("%w: it ended before it served: %s", errStart, how)
	}
}

// sendTime is how long a router may take to read an order; one that takes
// longer hangs, and must not hang the emperor with it.
const sendTime = 5 * time.Second

// forget gives up what belonged to a router that has ended.
func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current, k.wire, k.pid, k.unsettled = nil, nil, 0, false
	for id, answer := range k.answers {
		close(answer)
		delete(k.answers, id)
	}
}

// lead tells a new router everything it needs before it may serve.
func (k *Keeper) lead(w *wire) error {
	if err := k.addNetworks(w); err != nil {
		return err
	}
	// gofail: var routerKnowsNetworks struct{}
	if err := k.Rejoin(); err != nil {
		k.Log.Error("a device could not be handed to the new router", "err", err)
	}
	// gofail: var routerHasDevices struct{}
	return w.send(order{Serve: true})
}

// addNetworks tells a new router its networks. No change comes in between:
// the router has all of them as they are when it ends, and is told what comes
// later.
func (k *Keeper) addNetworks(w *wire) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != w {
		return net.ErrClosed
	}
	for _, n := range k.Networks {
		if err := n.add(w); err != nil {
			return err
		}
	}
	k.wire = w
	return nil
}

// add tells a router the network.
func (n *Network) add(w *wire) error {
	fds, err := n.descriptors()
	if err == nil {
		err = w.send(order{Add: &n.Config, Stats: n.Stats != nil, Gateway: n.Gateway != nil}, fds...)
	}
	if err != nil {
		return fmt.Errorf("add network %s: %w", n.Config.Name, err)
	}
	return nil
}

// descriptors are the network's, in the order in which the router takes them.
func (n *Network) descriptors() ([]int, error) {
	fds := []int{n.Device.FD()}
	for _, f := range []*os.File{n.Listener, n.Stats, n.Gateway} {
		if f == nil {
			continue
		}
		fd, err := descriptor(f)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// read takes the router's reports until the connection ends.
func (k *Keeper) read(w *wire, served func()) {
	for {
		var r report
		files, err := w.receive(&r)
		if err != nil {
			closeAll(files)
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				k.Log.Error("router: control connection", "err", err)
			}
			return
		}
		k.take(w, &r, files, served)
	}
}

func (k *Keeper) take(w *wire, r *report, files []*os.File, served func()) {
	switch {
	case r.Identify != 0 && len(files) == 1:
		vassal := k.Identify(files[0])
		if err := w.send(order{Identified: &identity{Conn: r.Identify, Vassal: vassal}}); err != nil {
			k.Log.Debug("router: identity", "err", err)
		}
	case r.Registered != nil:
		k.Registered(*r.Registered)
	case r.Refused != nil:
		k.Log.Warn("address refused", "network", r.Refused.Network, "vassal", r.Refused.Vassal,
			"addr", r.Refused.Addr, "reason", r.Refused.Reason, "holder", r.Refused.Holder)
	case r.Spoofed != nil: // the router's own log has told already
		k.Log.Debug("packets with a foreign source", "network", r.Spoofed.Network, "vassal", r.Spoofed.Vassal, "src", r.Spoofed.Addr)
	case r.Closed != nil:
		k.Log.Debug("peer closed", "network", r.Closed.Network, "vassal", r.Closed.Vassal, "reason", r.Closed.Why)
		k.Closed(*r.Closed)
	case r.Snapshot != nil:
		k.answered(r.Snapshot.ID, r)
	case r.Answer != nil:
		k.answered(r.Answer.ID, r)
	case r.Serving:
		served()
	case r.Error != "":
		k.Log.Error("router", "err", r.Error)
	}
	closeAll(files)
}

// Change gives a network a new configuration, now and for all routers to
// come: change edits it in place.
func (k *Keeper) Change(network string, change func(*tuntap.NetworkConfig)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.Networks {
		if n.Config.Name != network {
			continue
		}
		before, berr := json.Marshal(&n.Config)
		change(&n.Config)
		if k.wire == nil {
			return nil // the next router is told when it comes
		}
		if after, err := json.Marshal(&n.Config); berr == nil && err == nil && bytes.Equal(before, after) {
			return nil // and rules keep their counters
		}
		err := k.wire.send(order{Update: &n.Config})
		if err != nil && !errors.Is(err, errTooLong) {
			k.Log.Debug("router: update", "network", network, "err", err)
			return nil // it is on its way out, and the next one is told
		}
		return err
	}
	return fmt.Errorf("no network %q", network)
}

// PID is the router's, 0 while there is none.
func (k *Keeper) PID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pid
}
