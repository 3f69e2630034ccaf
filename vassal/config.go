package vassal

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/tuntap"
)

// Config is a vassal's ini, checked. It crosses from the expander to the
// emperor as JSON, so it holds plain values only.
type Config struct {
	Name string `json:"name"`
	File string `json:"file"`

	Command    []string   `json:"command,omitempty"`     // argv of the app; empty when it is a uwsgi
	App        []ini.Pair `json:"app,omitempty"`         // the options of the uwsgi that is the app
	BinaryPath string     `json:"binary_path,omitempty"` // of that uwsgi; empty: found in PATH
	Pushed     []ini.Pair `json:"pushed,omitempty"`      // the options that a command which speaks the emperor protocol gets by its config pipe

	Attached []Attached `json:"attached,omitempty"` // further processes, or the only ones

	UID    *Identity  `json:"uid,omitempty"`
	GID    *Identity  `json:"gid,omitempty"`
	AddGID []Identity `json:"add_gid,omitempty"`
	Cap    []string   `json:"cap,omitempty"`
	CapSet bool       `json:"cap_set,omitempty"` // cap was written, maybe empty

	Chdir  string   `json:"chdir,omitempty"`
	Chroot string   `json:"chroot,omitempty"`
	Env    []string `json:"env,omitempty"` // NAME=VALUE
	Umask  *int     `json:"umask,omitempty"`
	LogTo  string   `json:"logto,omitempty"`
	Log    Logging  `json:"log,omitzero"`

	Jailed      bool         `json:"jailed,omitempty"`
	Network     string       `json:"network,omitempty"` // NoNetwork, HostNetwork; empty: as the devices say
	NetworkPos  ini.Pos      `json:"network_pos,omitzero"`
	Devices     []DeviceSpec `json:"devices,omitempty"`
	Credentials bool         `json:"credentials,omitempty"` // foreign routers ask devices for them
	Hooks       []Hook       `json:"hooks,omitempty"`

	Publish []Publish `json:"publish,omitempty"` // ports of the host's by which it is reached

	Ready    Ready         `json:"ready,omitzero"`
	Health   Health        `json:"health,omitzero"`
	Watchdog time.Duration `json:"watchdog,omitempty"` // the longest time between two signs of life; 0: none are asked for

	Confine   Confine   `json:"confine,omitzero"`
	Isolation Isolation `json:"isolation,omitzero"`
	Limits    Limits    `json:"limits,omitzero"`
	Resources Resources `json:"resources,omitzero"`

	StopSignal  int           `json:"stop_signal,omitempty"`  // a signal number; 0 is the default of the kind of app
	ReloadMercy time.Duration `json:"reload_mercy,omitempty"` // between the stop signal and cgroup.kill
	MercySet    bool          `json:"mercy_set,omitempty"`    // reload-mercy was written
	Protocol    *bool         `json:"protocol,omitempty"`     // emperor-protocol; nil: as the kind of app

	Attributes []ini.Pair `json:"attributes,omitempty"` // of the section [emperor], those that the emperor asks for

	Door   string       `json:"-"` // the address by which connections wake the vassal, found by the emperor; empty: it is not on demand
	Socket SocketRights `json:"socket,omitzero"`

	Needless []string `json:"needless,omitempty"` // options that were accepted and do nothing here
	Strict   bool     `json:"strict,omitempty"`
}

// Identity is a user or group as the ini names it, with its number.
type Identity struct {
	Name   string  `json:"name"`
	ID     int     `json:"id"`
	Home   string  `json:"home,omitempty"`
	Main   int     `json:"main,omitempty"`   // a user's own group; -1: not known
	Groups []int   `json:"groups,omitempty"` // all groups of a user
	Pos    ini.Pos `json:"pos"`
}

// DeviceSpec is one tuntap-device of a vassal with the options that follow it.
type DeviceSpec struct {
	Name      string              `json:"name"`
	Socket    string              `json:"socket,omitempty"`  // the router's; empty: the device only, or the network that attaches all
	Network   string              `json:"network,omitempty"` // the router's device, instead of its socket
	Bridge    string              `json:"bridge,omitempty"`  // the kernel's bridge that it is in, instead of a router
	Auto      bool                `json:"auto,omitempty"`    // lease an address
	Addresses []netip.Addr        `json:"addresses,omitempty"`
	Gateways  []netip.Addr        `json:"gateways,omitempty"` // empty: the router's address
	MTU       int                 `json:"mtu,omitempty"`      // bytes; 0 is 1500
	Rules     []tuntap.DeviceRule `json:"rules,omitempty"`
	Implicit  bool                `json:"implicit,omitempty"` // no tuntap-device names it

	BridgeAddresses []netip.Prefix `json:"bridge_addresses,omitempty"` // the host's in the bridge, if it is to be made
	Pos             ini.Pos        `json:"pos"`
}

// Native says that the emperor, not hooks, gives the device its address.
func (d DeviceSpec) Native() bool { return d.Auto || len(d.Addresses) > 0 }

// Parse turns the expanded options of one ini into a Config. name is the
// vassal's, file the ini's path. All errors are returned together, with the
// warnings about options that nobody knows.
func Parse(name string, f *ini.File) (*Config, ini.Errors) {
	c := &Config{Name: name, File: f.Name, ReloadMercy: DefaultMercy, Strict: f.Strict}
	errs := ini.Decode(c, Options, f.Pairs)
	errs = append(errs, ini.Decode(&c.Hooks, HookOptions, f.Pairs)...)
	errs = append(errs, ini.Unknown(f, Known, knownNames(), dockersWords)...)
	c.leaseNamed()
	c.chooseApp(f.Pairs)
	c.noteNeedless(f.Pairs)
	errs = append(errs, c.attach(f.Pairs)...)
	errs = append(errs, c.unrun(f.Pairs)...)
	errs = append(errs, c.warnOfShell(f.Pairs)...)
	return c, append(errs, c.Validate()...)
}

// DefaultMercy is the time between the stop signal and cgroup.kill.
const DefaultMercy = 10 * time.Second

// chooseApp keeps the app-server options when the ini has no command: then
// the app is a real uwsgi.
func (c *Config) chooseApp(pairs []ini.Pair) {
	if len(c.Command) > 0 && !c.Speaks() {
		return
	}
	var app []ini.Pair
	serves := false
	for _, p := range pairs {
		switch class(p.Key) {
		case appsOwn:
			serves = true
			app = append(app, p)
		case attached:
			app = append(app, p)
		case needless:
			if !isTuntapPlugin(p) {
				app = append(app, p)
			}
		case unknown:
			app = append(app, p)
		case honoured:
			if slices.Contains(socketOptions, p.Key) {
				app = append(app, p)
			}
		}
	}
	switch {
	case len(c.Command) > 0:
		c.Pushed = app
		return
	case serves:
		c.App = app
	}
}

// noteNeedless lists the options that only an app server would have a use for,
// when the app is none.
func (c *Config) noteNeedless(pairs []ini.Pair) {
	for _, p := range pairs {
		idle := class(p.Key) == needless || class(p.Key) == appsOwn
		if len(c.App) == 0 && !c.Speaks() && idle && !slices.Contains(legionOptions, p.Key) && !slices.Contains(c.Needless, p.Key) {
			c.Needless = append(c.Needless, p.Key)
		}
	}
}

// isTuntapPlugin says that p loads uWSGI's tuntap plugin, whose job is ours.
func isTuntapPlugin(p ini.Pair) bool {
	if !strings.HasPrefix(p.Key, "plugin") && p.Key != "need-plugin" && p.Key != "need-plugins" {
		return false
	}
	return strings.TrimSpace(p.Value) == "tuntap"
}

// device returns the last device, which the options after it belong to. An
// address without a device names the default one.
func (c *Config) device(pos ini.Pos) *DeviceSpec {
	if len(c.Devices) == 0 {
		c.Devices = append(c.Devices, DeviceSpec{Name: DefaultDevice, Implicit: true, Pos: pos})
	}
	return &c.Devices[len(c.Devices)-1]
}

// DefaultDevice is the device of a vassal that names none.
const DefaultDevice = "eth0"

func setDevice(c *Config, p ini.Pair) error {
	words := strings.Fields(p.Value)
	if len(words) < 1 || len(words) > 2 {
		return fmt.Errorf("want DEVICE [SOCKET], got %q", p.Value)
	}
	if err := CheckDeviceName(words[0]); err != nil {
		return err
	}
	for _, d := range c.Devices {
		if d.Name == words[0] {
			return fmt.Errorf("device %q is already declared at %s", d.Name, d.Pos)
		}
	}
	d := DeviceSpec{Name: words[0], Pos: p.Pos}
	if len(words) == 2 {
		d.Socket = words[1]
	}
	c.Devices = append(c.Devices, d)
	return nil
}

func setAddress(c *Config, p ini.Pair) error {
	d := c.device(p.Pos)
	for word := range strings.FieldsSeq(strings.ReplaceAll(p.Value, ",", " ")) {
		if word == "auto" {
			d.Auto = true
			continue
		}
		a, err := netip.ParseAddr(strings.TrimSpace(word))
		if err != nil {
			if pre, perr := netip.ParsePrefix(word); perr == nil {
				return fmt.Errorf("%q: write the address alone (%s); the network's prefix is the emperor's", word, pre.Addr())
			}
			return fmt.Errorf("%q is neither an address nor \"auto\"", word)
		}
		d.Addresses = append(d.Addresses, a)
	}
	return nil
}

func setGateway(c *Config, p ini.Pair) error {
	a, err := netip.ParseAddr(p.Value)
	if err != nil {
		return fmt.Errorf("%q is no address", p.Value)
	}
	d := c.device(p.Pos)
	d.Gateways = append(d.Gateways, a)
	return nil
}

func setMTU(c *Config, p ini.Pair) error {
	n, err := ini.ParseInt(p.Value)
	if err != nil || n < minMTU || n > maxMTU {
		return fmt.Errorf("%q is no MTU: want 576 to 65000 bytes (1280 or more for IPv6)", p.Value)
	}
	c.device(p.Pos).MTU = n
	return nil
}

func setDeviceRule(c *Config, p ini.Pair) error {
	r, err := tuntap.ParseDeviceRule(p.Value)
	if err != nil {
		return fmt.Errorf("device rule: %w", err)
	}
	r.Rule.File, r.Rule.Line = p.Pos.File, p.Pos.Line
	d := c.device(p.Pos)
	d.Rules = append(d.Rules, r)
	return nil
}

func setSignal(c *Config, p ini.Pair) error {
	n, err := parseSignal(p.Value)
	if err != nil {
		return err
	}
	c.StopSignal = int(n)
	return nil
}

func setEnv(c *Config, p ini.Pair) error {
	name, _, ok := strings.Cut(p.Value, "=")
	if !ok || name == "" || strings.ContainsRune(p.Value, 0) {
		return fmt.Errorf("%q: want NAME=VALUE", p.Value)
	}
	c.Env = append(c.Env, p.Value)
	return nil
}

func setUmask(c *Config, p ini.Pair) error {
	n, err := strconv.ParseUint(p.Value, 8, 9)
	if err != nil {
		return fmt.Errorf("%q is no umask: want octal digits such as 022", p.Value)
	}
	mask := int(n)
	c.Umask = &mask
	return nil
}

func absolute(what string, dst *string, p ini.Pair) error {
	if !filepath.IsAbs(p.Value) {
		return fmt.Errorf("%s %q: want an absolute path", what, p.Value)
	}
	*dst = filepath.Clean(p.Value)
	return nil
}

// Signal is the signal that asks the app to stop. A uwsgi takes TERM for a
// reload unless its ini says die-on-term, so it gets INT.
func (c *Config) Signal() syscall.Signal {
	switch {
	case c.StopSignal != 0:
		return syscall.Signal(c.StopSignal)
	case len(c.App) > 0:
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

// Speaks says whether the app gets a channel of the emperor protocol: a uwsgi
// does, unless its ini says no.
func (c *Config) Speaks() bool {
	if c.Protocol != nil {
		return *c.Protocol
	}
	return len(c.App) > 0
}

// Args is the argv of the app. A uwsgi that does not take its options from a
// file (Settings) gets them one by one, as the dialect's "set". Without a
// command there are only attached processes, and no argv.
func (c *Config) Args() []string {
	if len(c.Command) > 0 || len(c.App) == 0 {
		return c.Command
	}
	binary := c.BinaryPath
	if binary == "" {
		binary = "uwsgi"
	}
	args := []string{binary}
	for _, p := range c.appOptions() {
		args = append(args, "--set", p.Key+"="+p.Value)
	}
	return args
}

// appOptions are the options of the uwsgi. An emperor's vassals have a master.
func (c *Config) appOptions() []ini.Pair {
	if slices.ContainsFunc(c.App, func(p ini.Pair) bool { return p.Key == "master" }) {
		return c.App
	}
	return append([]ini.Pair{{Key: "master", Value: "true"}}, c.App...)
}
