package vassal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/dump"
)

const (
	// watchSettle lets what happens to one host end come together.
	watchSettle = 100 * time.Millisecond
	// watchPause is between two reports: somebody else's program may want the bridge
	// otherwise, again and again.
	watchPause = time.Second
	watchAgain = 200 * time.Millisecond
)

// WatchHostEnds tells whose host end has left its bridge, or the host, until ctx is
// done. It may name one who has lost nothing: of a jail that begins or ends. The
// kernel ends a subscription that does not keep up with it; then there is a new one.
func WatchHostEnds(ctx context.Context, instance string, log *slog.Logger, left func(vassal string)) {
	for ctx.Err() == nil {
		if err := watchOnce(ctx, instance, left); err != nil {
			log.Warn("host ends; subscribing again", "err", err)
		}
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
		}
	}
}

func watchOnce(ctx context.Context, instance string, left func(vassal string)) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}})
	if err != nil {
		return fmt.Errorf("follow devices: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // its sender ends only when it can send
		}
	}()
	names, err := unbridged(instance) // before the subscription
	if err != nil {
		return err
	}
	settle := time.NewTimer(watchSettle)
	defer settle.Stop()
	var last time.Time
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return errors.New("the kernel ended the subscription")
			}
			if name, ok := leaver(instance, u); ok {
				names[name] = true
				settle.Reset(max(watchSettle, time.Until(last.Add(watchPause))))
			}
		case <-settle.C:
			for name := range names {
				left(name)
			}
			clear(names)
			last = time.Now()
		case <-ctx.Done():
			return nil
		}
	}
}

// unbridged are the vassals with a host end in no bridge. Who lost one altogether
// meanwhile is not among them.
func unbridged(instance string) (map[string]bool, error) {
	names := map[string]bool{}
	links, err := dump.Links()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		if name, ok := endOwner(instance, l); ok && l.Attrs().MasterIndex == 0 {
			names[name] = true
		}
	}
	return names, nil
}

// leaver is whose host end an announcement says to be in no bridge.
func leaver(instance string, u netlink.LinkUpdate) (vassal string, ok bool) {
	if u.Link == nil || u.Header.Type != unix.RTM_DELLINK && u.Attrs().MasterIndex != 0 {
		return "", false
	}
	return endOwner(instance, u.Link)
}

// endOwner is the vassal of a host end, by its alias.
func endOwner(instance string, l netlink.Link) (vassal string, ok bool) {
	rest, ok := strings.CutPrefix(l.Attrs().Alias, endAliasPrefix(instance))
	i := strings.LastIndexByte(rest, ' ')
	if !ok || i < 0 {
		return "", false
	}
	return rest[:i], true
}
