package control

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"fiefdom/internal/confine"
	"fiefdom/tuntap"
)

// BridgeProcess is the word on the command line that makes our binary the
// bridge of one device.
const BridgeProcess = "bridge"

// bridgeOrder is a message of the keeper to a bridge, with one descriptor: the
// device in the first message, a connection to the router in those after it.
type bridgeOrder struct {
	Known []tuntap.Announcement `json:"known,omitempty"` // of the device, by a bridge before
}

// bridgeReport is a message of a bridge to its keeper; one field is set.
type bridgeReport struct {
	Announced *tuntap.Announcement `json:"announced,omitempty"`
	Ended     string               `json:"ended,omitempty"` // why the connection is over
	Gone      string               `json:"gone,omitempty"`  // why the device is of no use; the last word
}

// BridgeMain is a bridge process. args are its uid and gid.
func BridgeMain(args []string) int {
	log := slog.New(slog.NewTextHandler(confine.Stderr{}, nil)).With("process", "bridge")
	if err := runBridge(args); err != nil {
		log.Error("bridge", "err", err)
		return 1
	}
	return 0
}

func runBridge(args []string) error {
	if len(args) != 2 {
		return errors.New("want UID GID; the emperor starts me")
	}
	uid, uerr := strconv.Atoi(args[0])
	gid, gerr := strconv.Atoi(args[1])
	if err := errors.Join(uerr, gerr); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	if err := confine.Process(uid, gid, confine.Given); err != nil {
		return fmt.Errorf("give rights away: %w", err)
	}
	w, err := newWire(os.NewFile(controlFD, "control"))
	if err != nil {
		return err
	}
	var o bridgeOrder
	f, err := receiveOne(w, &o)
	if err != nil {
		return fmt.Errorf("receive the device: %w", err)
	}
	dev, err := tuntap.NewDevice("device", f)
	if err != nil {
		return err
	}
	b, err := tuntap.NewBridge(dev, o.Known)
	if err != nil {
		return err
	}
	// An emperor that is gone hears nothing, and nobody dies with it.
	b.Announced = func(a tuntap.Announcement) { _ = w.send(bridgeReport{Announced: &a}) }
	b.Ended = func(why error) { _ = w.send(bridgeReport{Ended: why.Error()}) }
	if err := watchOrders(b, w); err != nil {
		return err
	}
	err = b.Run()
	if errors.Is(err, tuntap.ErrDeviceGone) {
		_ = w.send(bridgeReport{Gone: err.Error()})
		return nil
	}
	return err
}

// watchOrders has the bridge take connections from its keeper. The keeper is
// trusted: a message that has begun is waited for.
func watchOrders(b *tuntap.Bridge, w *wire) error {
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		return err
	}
	return b.Watch(fd, func() error {
		f, err := receiveOne(w, &bridgeOrder{})
		if err != nil {
			return io.EOF
		}
		return b.Join(f)
	})
}

// receiveOne receives a message with one descriptor.
func receiveOne(w *wire, v any) (*os.File, error) {
	files, err := w.receive(v)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%d descriptors came; want one", len(files))
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files[0], nil
}
