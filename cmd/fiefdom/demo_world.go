package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
)

// The cable between the demo's host and its internet (RFC 5737).
var (
	demoHost = netip.MustParsePrefix("198.51.100.1/24")
	demoInet = netip.MustParsePrefix("198.51.100.2/24")
)

// furnishDemo makes of our fresh namespaces a host with a cable, and at the
// other end of it the internet, whose namespace it returns.
func furnishDemo() (inet nsh.NsHandle, err error) {
	if err := demoMounts(); err != nil {
		return nsh.None(), err
	}
	inet, err = netns.New()
	if err != nil {
		return nsh.None(), err
	}
	if err := connect(inet); err != nil {
		return nsh.None(), errors.Join(err, inet.Close())
	}
	return inet, nil
}

// demoMounts gives us a /proc of our pid namespace and empty folders where
// emperors keep what is theirs.
func demoMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("leave the machine's mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	resolv, _ := filepath.EvalSymlinks("/etc/resolv.conf") // it may be a link into /run
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount an empty %s: %w", dir, err)
		}
	}
	// The lock of iptables' legacy backend, which it never removes.
	if err := os.WriteFile("/run/xtables.lock", nil, 0o600); err != nil {
		return err
	}
	return demoResolver(resolv)
}

// demoResolver makes the internet the host's resolver.
func demoResolver(path string) error {
	text := []byte("nameserver " + demoInet.Addr().String() + "\n")
	switch {
	case path == "":
		return nil // the machine has none
	case strings.HasPrefix(path, "/run/"), strings.HasPrefix(path, "/var/lib/"):
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, text, 0o644)
	}
	const own = "/run/resolv.conf"
	if err := os.WriteFile(own, text, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// connect makes the cable, and the host's default route through it. A fresh
// namespace may inherit the machine's forwarding; the demo's host begins
// without any.
func connect(inet nsh.NsHandle) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return fmt.Errorf("switch forwarding off: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(inet)}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("make a cable: %w", err)
	}
	if err := netns.Do(inet, func() error { return plug(demoInet) }); err != nil {
		return fmt.Errorf("internet: %w", err)
	}
	if err := plug(demoHost); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: demoInet.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// plug takes up the loopback and the cable's end in the thread's namespace.
func plug(a netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return errors.Join(giveAddress(eth0, a), netlink.LinkSetUp(eth0))
}

// copyFiles writes a tree of embedded files to a directory.
func copyFiles(from fs.FS, to string) error {
	return fs.WalkDir(from, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), text, 0o644)
	})
}

// until calls try until it has no error, and returns its last error when ctx
// is done or the time is over.
func until(ctx context.Context, within time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v", within))
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
