package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"fiefdom/tuntap"
)

// Bridges starts a bridge process for each device whose router is not ours, and
// keeps it running. Set the fields, then Start.
type Bridges struct {
	Log      *slog.Logger
	UID, GID int      // the bridges' own
	Emperor  int      // whose sockets are no foreign routers': its pid; 0: nobody's
	Cgroup   *os.File // the directory that bridges are cloned into; nil: ours

	// Record and Forget note a bridge's life where no cgroup does; nil: not needed.
	Record func(name string, pid int) error
	Forget func(name string) error
}

// BridgeConfig is a device that wants a bridge.
type BridgeConfig struct {
	Vassal    string
	Device    *tuntap.Device // stays the caller's, and open until Stop
	Socket    string         // the router's
	Greeting  tuntap.Greeting
	Announced func(tuntap.Announcement) // the device's first packet of a family went to the router
	Known     []tuntap.Announcement     // that an earlier bridge of the device made
	Again     bool                      // there was an earlier one: a router that is not there is waited for
	Lost      func(why string)          // the device is gone; nothing follows but Stop
}

// Bridge is a device's bridge, whichever process it is at the time.
type Bridge struct {
	BridgeConfig
	keeper *Bridges
	cancel context.CancelFunc
	ended  chan struct{}

	known []tuntap.Announcement // by the goroutine that keeps it
	wait  time.Duration         // before the next try; also its
	since time.Time             // of the connection; also its

	mu      sync.Mutex
	trouble string
}

// The back-off between tries to reach a router, or to start a process, that
// ended early.
const (
	bridgeWaitLeast = 20 * time.Millisecond
	bridgeWaitMost  = 2 * time.Second
	bridgeCalm      = time.Second // a connection that lasted as long ended by accident
)

// dial connects to a foreign router. One of ours, by whatever name its socket was
// written, would take the bridge for the emperor, who connects it.
func (k *Bridges) dial(socket string) (*net.UnixConn, error) {
	conn, err := tuntap.Dial(socket)
	if err != nil {
		return nil, err
	}
	who, err := listenerOf(conn)
	if err == nil && who != 0 && who == k.Emperor {
		err = errors.New("it is a socket of this emperor's own; write it as the tuntap-router line does")
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// listenerOf is the pid of the process that had the socket listen, 0 if it is of
// a pid namespace that is not seen from here (unix(7), SO_PEERCRED).
func listenerOf(conn *net.UnixConn) (int, error) {
	cred, err := peerOf(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// Start connects to the router and starts the bridge. A router that is not
// there is an error at once; one that goes later is waited for.
func (k *Bridges) Start(c BridgeConfig) (*Bridge, error) {
	conn, err := k.dial(c.Socket)
	if err != nil && !c.Again {
		return nil, fmt.Errorf("connect device %s to router %s: %w", c.Device.Name, c.Socket, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Bridge{BridgeConfig: c, keeper: k, cancel: cancel, ended: make(chan struct{}), wait: bridgeWaitLeast, known: c.Known}
	life, berr := b.begin()
	switch {
	case berr == nil && err != nil:
		life.away = true
		b.note(err.Error())
		err = nil
	case berr == nil:
		if err = b.greet(life, conn); err != nil {
			err = errors.Join(err, life.end())
		}
	default:
		if err == nil {
			conn.Close()
		}
		err = berr
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("bridge device %s to router %s: %w", c.Device.Name, c.Socket, err)
	}
	go b.keep(ctx, life) // Stop waits for it
	return b, nil
}

// Stop ends the bridge and its connection; nothing of it is left when it returns.
func (b *Bridge) Stop() {
	b.cancel()
	<-b.ended
}

// Trouble says why the bridge has no router now; empty when it has.
func (b *Bridge) Trouble() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble
}

// note sets the trouble and logs its begin and its end.
func (b *Bridge) note(trouble string) {
	b.mu.Lock()
	before := b.trouble
	b.trouble = trouble
	b.mu.Unlock()
	log := b.keeper.Log.With("vassal", b.Vassal, "dev", b.Device.Name, "socket", b.Socket)
	switch {
	case trouble != "" && before == "":
		log.Warn("bridge has no router; trying again", "reason", trouble)
	case trouble == "" && before != "":
		log.Info("bridge has its router again")
	}
}

// keep keeps a bridge running until ctx is done or the device is gone.
func (b *Bridge) keep(ctx context.Context, life *bridgeLife) {
	defer close(b.ended)
	for {
		stop := context.AfterFunc(ctx, life.kill)
		err := b.follow(ctx, life)
		stop()
		err = errors.Join(err, life.end())
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errBridgedGone):
			b.Lost(err.Error())
			return
		}
		b.keeper.Log.Error("bridge ended; starting it again", "vassal", b.Vassal, "dev", b.Device.Name, "err", err)
		b.calm()
		for life = nil; life == nil; {
			if !b.pause(ctx) {
				return
			}
			if life, err = b.begin(); err != nil {
				b.note(err.Error())
				continue
			}
			life.away = true
			_ = b.connect(life) // without one, follow tries again
		}
	}
}

var errBridgedGone = errors.New("the bridge's device is gone")

// follow hears a bridge process until it ends.
func (b *Bridge) follow(ctx context.Context, life *bridgeLife) error {
	for {
		if life.away {
			if !b.pause(ctx) {
				return ctx.Err()
			}
			if err := b.connect(life); errors.Is(err, errWire) {
				return err
			}
			continue
		}
		var r bridgeReport
		files, err := life.wire.receive(&r)
		closeAll(files)
		switch {
		case err != nil:
			return fmt.Errorf("its process ended: %w", err)
		case r.Gone != "":
			return fmt.Errorf("%w: %s", errBridgedGone, r.Gone)
		case r.Ended != "":
			life.away = true
			b.calm()
			b.note(r.Ended)
		case r.Announced != nil && len(b.known) < 2: // one a family
			b.known = append(b.known, *r.Announced)
			b.Announced(*r.Announced)
		}
	}
}

// calm begins the back-off anew after a connection that lasted.
func (b *Bridge) calm() {
	if time.Since(b.since) > bridgeCalm {
		b.wait = bridgeWaitLeast
	}
}

// pause waits before the next try; false when there is none.
func (b *Bridge) pause(ctx context.Context) bool {
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	b.wait = min(2*b.wait, bridgeWaitMost)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect gives the process a connection to the router.
func (b *Bridge) connect(life *bridgeLife) error {
	conn, err := b.keeper.dial(b.Socket)
	if err == nil {
		err = b.greet(life, conn)
	}
	if err != nil {
		b.note(err.Error())
		return err
	}
	b.note("")
	return nil
}

// errWire says that the bridge process does not listen any more.
var errWire = errors.New("the bridge takes no orders")

// greet greets the router and hands the connection to the process.
func (b *Bridge) greet(life *bridgeLife, conn *net.UnixConn) error {
	defer conn.Close()
	if err := b.Greeting.Send(conn, life.process.Pid); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = life.wire.send(bridgeOrder{}, int(fd)) }); err != nil {
		return err
	}
	if sent != nil {
		return fmt.Errorf("%w: %w", errWire, sent)
	}
	life.away, b.since = false, time.Now()
	return nil
}

// bridgeLife is one process of a bridge.
type bridgeLife struct {
	wire    *wire
	process *os.Process
	away    bool // it has no connection
	forget  func() error
}

// begin starts a process and gives it the device.
func (b *Bridge) begin() (*bridgeLife, error) {
	w, theirs, err := newPair()
	if err != nil {
		return nil, err
	}
	w.patience = sendTime
	process, err := b.keeper.start(theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(err, w.conn.Close())
	}
	life := &bridgeLife{wire: w, process: process, forget: func() error { return nil }}
	if b.keeper.Record != nil {
		name := b.Vassal + "/" + b.Device.Name
		if err := b.keeper.Record(name, process.Pid); err != nil {
			return nil, errors.Join(fmt.Errorf("record the bridge: %w", err), life.end())
		}
		life.forget = func() error { return b.keeper.Forget(name) }
	}
	if err := w.send(bridgeOrder{Known: b.known}, b.Device.FD()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errWire, err), life.end())
	}
	return life, nil
}

// start starts a process. In a pid namespace of its own it sees no other, not
// even those of its uid.
func (k *Bridges) start(theirs *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID}
	if k.Cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(k.Cgroup.Fd())
	}
	return os.StartProcess("/proc/self/exe", []string{os.Args[0], BridgeProcess, strconv.Itoa(k.UID), strconv.Itoa(k.GID)},
		&os.ProcAttr{Dir: "/", Files: []*os.File{null, os.Stderr, os.Stderr, theirs}, Sys: sys, Env: []string{}})
}

// kill ends the process, which ends the connection to it.
func (l *bridgeLife) kill() { _ = l.process.Kill() }

// end ends the process and waits for it.
func (l *bridgeLife) end() error {
	l.kill()
	_, err := l.process.Wait()
	return errors.Join(err, l.wire.conn.Close(), l.forget())
}
