package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
)

// notifier tells a service manager how the emperor is, by the protocol of
// sd_notify(3). Without one that asked for it nothing is told.
type notifier struct {
	send     func(state string) error // nil: nobody listens
	watchdog time.Duration            // the longest silence that the service manager bears; 0: any
	log      *slog.Logger

	reloads chan struct{} // a reload was asked for
	end     func()        // ends the telling, and waits for that
}

// takeNotifier reads what a service manager wants from the environment, and
// takes it out of there: what the emperor starts is not to answer for him.
func takeNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, reloads: make(chan struct{}, 1), end: func() {}}
	var err error
	if n.watchdog, err = daemon.SdWatchdogEnabled(true); err != nil {
		log.Warn("watchdog of the service manager", "err", err)
	}
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		n.send = func(state string) error { return notify(socket, state) }
	}
	_ = os.Unsetenv("NOTIFY_SOCKET") // fails for names that are none
	return n
}

// notify sends one message. (The library's function reads the socket's name from
// the environment each time, where our children would find it too.)
func notify(socket, state string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}

// reloading says that a reload was asked for.
func (n *notifier) reloading() {
	select {
	case n.reloads <- struct{}{}:
	default: // the one that waits to be told stands for both
	}
}

// begin tells from now on, until end: ready when every good ini has begun and the
// emperor answers, stopping when ctx is done, and that the loop turns as long as
// pulse, which is asked each time, comes back.
func (n *notifier) begin(ctx context.Context, pulse func(context.Context) (emperor.Pulse, error), answers func() bool) {
	if n.send == nil {
		return
	}
	telling, hush := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.tell(telling, ctx.Done(), pulse, answers)
	}()
	n.end = func() { hush(); <-done }
}

// Times of what is told.
const (
	notifySoon    = 20 * time.Millisecond // between looks for the end of a start or reload
	notifySeldom  = 2 * time.Second       // between looks at everything else, at most
	notifyExtends = 30 * time.Second      // that a start or stop may take from each message on
)

func (n *notifier) tell(ctx context.Context, stop <-chan struct{}, pulse func(context.Context) (emperor.Pulse, error), answers func() bool) {
	var words []string // of the next message
	var fed, extended time.Time
	var status string
	awaited, stopping := true, false // a start or a reload is not over; the stop has begun
	failed := false
	for {
		p, err := pulse(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		if n.watchdog > 0 && now.Sub(fed) >= n.watchdog/3 {
			fed = now
			words = append(words, daemon.SdNotifyWatchdog)
		}
		if (awaited || stopping) && now.Sub(extended) >= notifyExtends/10 {
			extended = now
			words = append(words, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", notifyExtends.Microseconds()))
		}
		if awaited && !stopping && !p.Reading && answers() {
			awaited = false
			words = append(words, daemon.SdNotifyReady)
		}
		if s := statusText(p); s != status {
			status = s
			words = append(words, "STATUS="+s)
		}
		if len(words) > 0 {
			err := n.send(strings.Join(words, "\n"))
			if err != nil && !failed {
				n.log.Warn("tell the service manager", "err", err)
			}
			failed = err != nil
			words = words[:0]
		}
		select {
		case <-stop:
			stop, stopping = nil, true
			words = append(words, daemon.SdNotifyStopping)
		case <-n.reloads:
			awaited = true
			words = append(words, daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()))
		case <-time.After(n.pause(awaited)):
		case <-ctx.Done():
			return
		}
	}
}

func (n *notifier) pause(awaited bool) time.Duration {
	switch {
	case awaited:
		return notifySoon
	case n.watchdog > 0:
		return min(n.watchdog/3, notifySeldom)
	}
	return notifySeldom
}

// monotonic is the clock by which a service manager orders reloads.
func monotonic() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// statusText is the line that systemctl status shows.
func statusText(p emperor.Pulse) string {
	total := 0
	var parts []string
	for _, state := range emperor.States {
		if count := p.States[state]; count > 0 {
			total += count
			parts = append(parts, fmt.Sprintf("%d %s", count, state))
		}
	}
	if total == 0 {
		return "no vassals"
	}
	return fmt.Sprintf("vassals: %s", strings.Join(parts, ", "))
}
