package vassal

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fiefdom/internal/ini"
)

// Bounds of what one vassal may ask for: an owner must not cost the emperor,
// or the pool, more than any app needs.
const (
	maxDevices   = 16
	maxAddresses = 32 // of all devices
	maxHooks     = 1000
	maxErrors    = 100
	maxMercy     = time.Hour // the emperor's own end waits for it
	maxID        = 1<<32 - 2 // (uid_t)-1 means "leave it as it is" (setresuid(2)), which is root here
	maxSignal    = 64        // SIGRTMAX
	maxPath      = 4096      // PATH_MAX
	minMTU       = 576       // bytes
	maxMTU       = 65000
	maxEnv       = maxMessage // bytes of all variables; more cannot reach the init stage
	maxMask      = 0o777
)

// Validate says what no ini can have given: the emperor takes a Config from a
// process under the owner's uid, so it may be anything. The parser's errors
// are Parse's own; here is what must hold whoever made the value.
func (c *Config) Validate() ini.Errors {
	var errs ini.Errors
	report := func(pos ini.Pos, err error) {
		if err != nil {
			if pos.File == "" {
				pos.File = c.File
			}
			errs = append(errs, ini.Error{Pos: pos, Message: err.Error()})
		}
	}
	file := ini.Pos{File: c.File}
	for _, check := range []func() error{c.checkApp, c.checkSettings, c.checkPaths, c.checkConfine, c.checkEnv, c.checkNumbers, c.checkCap, c.checkLog, c.Socket.check} {
		report(file, check())
	}
	report(file, c.Limits.check())
	report(file, c.Resources.check())
	report(c.Isolation.check())
	report(c.checkNetwork())
	report(file, c.checkProbes())
	for _, id := range c.identities() {
		report(id.Pos, id.check())
	}
	for i, h := range c.Hooks {
		if i == maxHooks {
			report(h.Pos, fmt.Errorf("%d hooks; at most %d are allowed", len(c.Hooks), maxHooks))
			break
		}
		report(h.Pos, h.check())
	}
	for i, d := range c.Attached {
		if i == maxAttached {
			report(d.Pos, fmt.Errorf("%d attached processes; at most %d are allowed", len(c.Attached), maxAttached))
			break
		}
		report(d.Pos, d.check(c.Attached[:i]))
	}
	// What would only fail in the kernel, while the vassal starts, does not get that far.
	names, seen := map[string]bool{}, map[netip.Addr]bool{}
	for i := range c.Devices {
		if i == maxDevices {
			report(c.Devices[i].Pos, fmt.Errorf("%d devices; at most %d are allowed", len(c.Devices), maxDevices))
			break
		}
		report(c.Devices[i].Pos, c.Devices[i].check(names, seen))
	}
	c.checkPublish(report)
	errs = append(errs, c.CheckAttributes()...)
	return errs[:min(len(errs), maxErrors)]
}

func (c *Config) checkApp() error {
	if len(c.Attached) > 0 && c.Speaks() {
		return errors.New("emperor-protocol is for a command alone; leave it or the attached processes out")
	}
	if len(c.Command) == 0 && len(c.App) == 0 && len(c.Attached) == 0 {
		return errors.New("nothing to run: write command = PROGRAM ARGUMENTS (or an app-server option of uWSGI such as psgi or wsgi-file)")
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		return errors.New("the command has an empty name")
	}
	if slices.ContainsFunc(c.Args(), hasNUL) {
		return errors.New("a command's arguments cannot hold NUL bytes")
	}
	return nil
}

func (c *Config) checkPaths() error {
	for name, path := range map[string]string{"chdir": c.Chdir, "chroot": c.Chroot, "logto": c.LogTo, "binary-path": c.BinaryPath} {
		if path != "" && (!filepath.IsAbs(path) || len(path) > maxPath || hasNUL(path)) {
			return fmt.Errorf("%s %.100q: want an absolute path of at most %d bytes", name, path, maxPath)
		}
	}
	return nil
}

func (c *Config) checkEnv() error {
	size := 0
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || hasNUL(e) {
			return fmt.Errorf("env %.100q: want NAME=VALUE", e)
		}
		size += len(e)
	}
	if size > maxEnv {
		return fmt.Errorf("the environment has %d bytes; at most %d fit", size, maxEnv)
	}
	return nil
}

func (c *Config) checkNumbers() error {
	switch {
	case c.StopSignal < 0 || c.StopSignal > maxSignal:
		return fmt.Errorf("stop-signal %d: want a signal from 1 to %d", c.StopSignal, maxSignal)
	case c.ReloadMercy < 0 || c.ReloadMercy > maxMercy:
		return fmt.Errorf("reload-mercy %s: want at most %s, for the emperor's own end waits as long", c.ReloadMercy, maxMercy)
	case c.Umask != nil && (*c.Umask < 0 || *c.Umask > maxMask):
		return fmt.Errorf("umask %o: want 0 to %o", *c.Umask, maxMask)
	}
	return nil
}

func (c *Config) checkLog() error { return c.Log.Check(c.LogTo) }

func (c *Config) checkCap() error {
	for _, name := range c.Cap {
		if _, ok := capabilities()[name]; !ok {
			return fmt.Errorf("unknown capability %.100q; capabilities(7) lists them", name)
		}
	}
	return nil
}

func (c *Config) identities() []Identity {
	all := slices.Clone(c.AddGID)
	ids := []*Identity{c.UID, c.GID}
	for _, d := range c.Attached {
		ids = append(ids, d.UID, d.GID)
	}
	for _, id := range ids {
		if id != nil {
			all = append(all, *id)
		}
	}
	return all
}

func (id Identity) check() error {
	for _, n := range append([]int{id.ID, max(id.Main, 0)}, id.Groups...) {
		if n < 0 || n > maxID {
			return fmt.Errorf("%.100q: %d is no number of a user or group; want 0 to %d", id.Name, n, maxID)
		}
	}
	return nil
}

func (h Hook) check() error {
	switch h.Phase {
	case AsAsap, PreJail, InJail, PostJail, AsRoot, AsUser:
		return h.checkAction()
	}
	return fmt.Errorf("unknown phase %.100q of a hook", h.Phase)
}

// check adds the device's name and addresses to those of its vassal.
func (d *DeviceSpec) check(names map[string]bool, seen map[netip.Addr]bool) error {
	if err := CheckDeviceName(d.Name); err != nil {
		return err
	}
	if names[d.Name] {
		return fmt.Errorf("device %q is declared twice", d.Name)
	}
	names[d.Name] = true
	if err := d.checkPlace(); err != nil {
		return err
	}
	if d.MTU != 0 && (d.MTU < minMTU || d.MTU > maxMTU) {
		return fmt.Errorf("device %s: %d is no MTU: want %d to %d bytes", d.Name, d.MTU, minMTU, maxMTU)
	}
	for _, r := range d.Rules {
		if err := r.Check(); err != nil {
			return fmt.Errorf("device %s: rule %s: %w", d.Name, r.Rule, err)
		}
	}
	for _, a := range d.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
		if seen[a] {
			return fmt.Errorf("address %s is declared twice", a)
		}
		seen[a] = true
	}
	if len(seen) > maxAddresses {
		return fmt.Errorf("more than %d addresses", maxAddresses)
	}
	families := map[bool]bool{}
	for _, gw := range d.Gateways {
		if err := checkAddress(gw); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
		if families[gw.Is4()] {
			return fmt.Errorf("device %s has two gateways of one family; a device has one", d.Name)
		}
		families[gw.Is4()] = true
	}
	return nil
}

func checkAddress(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return fmt.Errorf("%s cannot be a device's address; want a plain IPv4 or IPv6 address of the network", a)
	}
	return nil
}

// CheckDeviceName applies the kernel's rule (dev_valid_name in net/core/dev.c),
// and leaves out what it takes for a pattern, what jails have anyway, and what
// would not look like a name in a log.
func CheckDeviceName(name string) error {
	bad := func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || !unicode.IsGraphic(r) || unicode.IsSpace(r)
	}
	if name == "" || len(name) > 15 || name == "." || name == ".." || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%.100q is no device name: want 1 to 15 bytes, without blanks, slashes, colons and percent signs", name)
	}
	if name == "lo" || name == "all" || name == "default" {
		return fmt.Errorf("%q is no name for a device: every namespace has one of it", name)
	}
	return nil
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }
