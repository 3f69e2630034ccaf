package vassal

import (
	_ "embed"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/google/shlex"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Options are a vassal's options, hooks aside (HookOptions).
var Options = slices.Concat([]ini.Option[Config]{
	{
		Name: "command", Aliases: []string{"unprivileged-binary-patch-arg", "unprivileged-binary-patch", "privileged-binary-patch-arg", "privileged-binary-patch"}, Kind: ini.Command, Since: "0.1", Set: setCommand,
		Meaning: "the app: a program and its arguments, quoted as in a shell, run without one",
	},
	{
		Name: "uid", Kind: ini.Text, Since: "0.1", Set: setUID,
		Meaning: "the user that the app runs under, by name or number; without it, in a native network, a stable number of its own",
	},
	{
		Name: "gid", Kind: ini.Text, Since: "0.1", Set: setGID,
		Meaning: "the group that the app runs under, by name or number; without it the user's own",
	},
	{
		Name: "add-gid", Kind: ini.Text, Since: "0.1", Repeats: true, Set: addGID,
		Meaning: "one more group of the app",
	},
	{
		Name: "cap", Kind: ini.List, Since: "0.1", Set: setCap,
		Meaning: "the capabilities that the app keeps, such as net_bind_service",
	},
	{
		Name: "chdir", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return absolute("chdir", &c.Chdir, p) },
		Meaning: "the directory that the app starts in (/; the ini's folder for a uwsgi and outside native networks)",
	},
	{
		Name: "chroot", Kind: ini.Path, Since: "0.1", Set: setChroot,
		Meaning: "the directory that becomes the app's root",
	},
	{
		Name: "env", Kind: ini.Text, Since: "0.1", Repeats: true, Set: setEnv,
		Meaning: "a variable of the app's environment, NAME=VALUE",
	},
	{
		Name: "umask", Kind: ini.Int, Since: "0.1", Set: setUmask,
		Meaning: "the app's umask, in octal",
	},
	{
		Name: "logto", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return absolute("logto", &c.LogTo, p) },
		Meaning: "the file that the app's output is appended to, instead of the emperor's log",
	},
	{
		Name: "stop-signal", Kind: ini.Text, Since: "0.1", Set: setSignal,
		Meaning: "the signal that asks the app to stop (TERM; INT for a uwsgi that has not started yet, and nothing but the byte 0 for an app that speaks the emperor protocol)",
	},
	{
		Name: "reload-mercy", Kind: ini.Duration, Since: "0.1", Set: setMercy,
		Meaning: "the time that the app has for stopping before it is killed (10s), and for being ready again after the emperor told it to reload before it is started anew (120s; 0 means that too)",
	},
	{
		Name: "emperor-protocol", Kind: ini.Bool, Since: "0.1", Set: setProtocol,
		Meaning: "give the app a channel to the emperor, whose descriptor UWSGI_EMPEROR_FD tells: it is stopped and reloaded by bytes, and tells by bytes how it is (on for a uwsgi, off for a command). A command finds the other options of its ini, those of an app server and those that nobody knows, in the config pipe of UWSGI_EMPEROR_FD_CONFIG",
	},
	{
		Name: "chmod-socket", Kind: ini.Int, Since: "0.1", Set: setSocketMode,
		Meaning: "the mode of the socket that wakes an on demand vassal, in octal (666); also of the sockets of a uwsgi",
	},
	{
		Name: "chown-socket", Kind: ini.Text, Since: "0.1", Set: setSocketOwner,
		Meaning: "USER[:GROUP]: the owner of the socket that wakes an on demand vassal (the app's user and group); also of the sockets of a uwsgi",
	},
	{
		Name: "binary-path", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return absolute("binary-path", &c.BinaryPath, p) },
		Meaning: "the uwsgi that runs app-server options, instead of the first in PATH",
	},
	{
		Name: "jailed", Kind: ini.Bool, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Jailed = ini.ParseBool(p.Value); return nil },
		Meaning: "uWSGI's word that the vassal lives in a jail; a vassal with a device always does",
	},
	{
		Name: "network", Kind: ini.Text, Since: "0.1", Repeats: true, Set: setNetwork,
		Meaning: "none (loopback alone), host (no jail), NAME... (the devices of tuntap-router lines), or bridge:NAME [ADDRESS/BITS...] (a bridge of the kernel's; with ADDRESS/BITS one that is made): a device in each network, eth0, eth1 and so on, with an address; the first has the default route",
	},
	{
		Name: "tuntap-device", Kind: ini.Text, Since: "0.1", Repeats: true, Set: setDevice,
		Meaning: "DEVICE [SOCKET]: a tun device in the jail, joined to the router that listens on SOCKET, this emperor's or another such as a real uWSGI's",
	},
	{
		Name: "tuntap-use-credentials", Kind: ini.Bool, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Credentials = ini.ParseBool(p.Value); return nil },
		Meaning: "tell the app's user and group to routers that are not this emperor's, if they ask for credentials",
	},
	{
		Name: "tuntap-device-rule", Kind: ini.Rule, Since: "0.1", Repeats: true, Set: setDeviceRule,
		Meaning: "in|out SRC DST ACTION: a rule of the device before it. ACTION is allow, deny, reject, or for out: route IP:PORT (or gateway IP:PORT), to a far end that the emperor's ini names",
	},
	{
		Name: "tuntap-device-address", Kind: ini.Address, Since: "0.1", Repeats: true, Set: setAddress,
		Meaning: "the device's address, or \"auto\" for one that stays with the vassal's name",
	},
	{
		Name: "tuntap-device-gateway", Kind: ini.Address, Since: "0.1", Repeats: true, Set: setGateway,
		Meaning: "the default route of the device (the router's address)",
	},
	{
		Name: "tuntap-device-mtu", Kind: ini.Int, Since: "0.1", Set: setMTU,
		Meaning: "the device's MTU in bytes (1500)",
	},
	lateLogOption,
}, LogOptions(func(c *Config) *Logging { return &c.Log }), confineOptions, isolationOptions, limitOptions, probeOptions, publishOptions,
	ResourceOptions(func(c *Config) *Resources { return &c.Resources }, ""))

func setCommand(c *Config, p ini.Pair) error {
	argv, err := shlex.Split(p.Value)
	if err != nil {
		return fmt.Errorf("%q: %w (quote as in a shell)", p.Value, err)
	}
	if len(argv) == 0 {
		return fmt.Errorf("empty command; want PROGRAM [ARGUMENT...]")
	}
	if p.Key == "unprivileged-binary-patch" || p.Key == "privileged-binary-patch" {
		argv = []string{p.Value, "--ini", c.File} // what uWSGI's emperor gives its vassals
	}
	c.Command = argv
	return nil
}

func setChroot(c *Config, p ini.Pair) error {
	c.Isolation.note("chroot", p.Pos)
	return absolute("chroot", &c.Chroot, p)
}

func setMercy(c *Config, p ini.Pair) error {
	d, err := ini.ParseDuration(p.Value)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no time: want seconds (10) or a number with a unit (500ms)", p.Value)
	}
	c.ReloadMercy, c.MercySet = d, true
	return nil
}

func setProtocol(c *Config, p ini.Pair) error {
	on := ini.ParseBool(p.Value)
	c.Protocol = &on
	return nil
}

func setUID(c *Config, p ini.Pair) error {
	id := Identity{Name: p.Value, Pos: p.Pos, Main: -1}
	u, err := user.Lookup(p.Value)
	if n, nerr := strconv.Atoi(p.Value); err != nil && nerr == nil && n >= 0 {
		id.ID = n
		if n > maxID { // libc's lookup would cut it to 32 bits: another user, maybe root
			return id.check()
		}
		if u, err = user.LookupId(p.Value); err != nil {
			c.UID = &id
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("no user %q on this machine; make it with: adduser --system %s", p.Value, p.Value)
	}
	id.Home = u.HomeDir
	id.ID, _ = strconv.Atoi(u.Uid)
	id.Main, _ = strconv.Atoi(u.Gid)
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("groups of user %q: %w", p.Value, err)
	}
	for _, g := range groups {
		n, _ := strconv.Atoi(g)
		id.Groups = append(id.Groups, n)
	}
	c.UID = &id
	return nil
}

func lookupGroup(p ini.Pair) (Identity, error) {
	id := Identity{Name: p.Value, Pos: p.Pos}
	if n, err := strconv.Atoi(p.Value); err == nil && n >= 0 {
		id.ID = n
		return id, nil
	}
	g, err := user.LookupGroup(p.Value)
	if err != nil {
		return id, fmt.Errorf("no group %q on this machine; make it with: addgroup --system %s", p.Value, p.Value)
	}
	id.ID, _ = strconv.Atoi(g.Gid)
	return id, nil
}

func setGID(c *Config, p ini.Pair) error {
	id, err := lookupGroup(p)
	c.GID = &id
	return err
}

func addGID(c *Config, p ini.Pair) error {
	id, err := lookupGroup(p)
	c.AddGID = append(c.AddGID, id)
	return err
}

func setCap(c *Config, p ini.Pair) error {
	c.Cap, c.CapSet = nil, true
	c.Isolation.note("cap", p.Pos)
	for word := range strings.FieldsFuncSeq(p.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, err := CapabilityName(word)
		if err != nil {
			return err
		}
		c.Cap = append(c.Cap, name)
	}
	return nil
}

// CapabilityName reads the name or number of a capability; the name is that of
// capabilities(7), lower case and without "cap_".
func CapabilityName(word string) (string, error) {
	if n, err := strconv.Atoi(word); err == nil {
		for name, c := range capabilities() {
			if int(c) == n {
				return name, nil
			}
		}
	}
	name := strings.TrimPrefix(strings.ToLower(word), "cap_")
	if _, ok := capabilities()[name]; !ok {
		return "", fmt.Errorf("unknown capability %q; capabilities(7) lists them", word)
	}
	return name, nil
}

// capabilities maps the names of capabilities(7), lower case and without
// "cap_", to their numbers.
var capabilities = sync.OnceValue(func() map[string]capability.Cap {
	m := map[string]capability.Cap{}
	for _, c := range capability.ListKnown() {
		m[c.String()] = c
	}
	return m
})

func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("unknown signal %q; want a name such as TERM or a number", s)
}

// optionClass says whose an option is.
type optionClass int

const (
	unknown  optionClass = iota
	honoured             // ours, and it does something
	needless             // accepted: the job is done anyway, or it only shapes an app server
	appsOwn              // an option of the app server
	attached             // of a process beside the command, or the app server's where there is one
	logic                // the dialect's own: include, if-env, set, …
)

//go:embed uwsgi-options.txt
var uwsgiOptions string

var classes = sync.OnceValue(func() map[string]optionClass {
	m := map[string]optionClass{}
	for name := range strings.FieldsSeq(uwsgiOptions) {
		m[name] = appsOwn
	}
	for _, name := range needlessOptions {
		m[name] = needless
	}
	for _, d := range ini.Dialect() {
		m[d.Name] = logic
	}
	for _, d := range ini.Docs("vassal", Options) {
		for _, name := range append(d.Aliases, d.Name) {
			m[name] = honoured
		}
	}
	for _, d := range ini.Docs("hooks", HookOptions) {
		m[d.Name] = honoured
	}
	for _, d := range ini.Docs("attached", AttachOptions) {
		m[d.Name] = attached
	}
	return m
})

// needlessOptions alone do not make a vassal an app server: our own emperor
// does their job, or they only shape a server that other options ask for.
var needlessOptions = []string{
	"master", "plugin", "plugins", "plugin-dir", "plugins-dir", "need-plugin", "need-plugins", "autoload",
	"vacuum", "processes", "workers", "threads", "enable-threads", "die-on-term", "no-orphans", "auto-procname",
	"procname", "procname-prefix", "procname-prefix-spaced", "need-app", "no-initgroups",
	"lazy", "lazy-apps", "single-interpreter", "thunder-lock", "harakiri", "buffer-size", "listen", "memory-report",
	"disable-logging", "log-date", "logger", "req-logger", "touch-reload", "pidfile", "safe-pidfile", "heartbeat",
	"setns-preopen", "refork", "refork-as-root", "refork-post-jail",
}

// class says whose the option is.
func class(name string) optionClass { return classes()[name] }

// Known says whether a vassal's ini may have the option.
func Known(name string) bool { return class(name) != unknown }

func knownNames() []string {
	names := make([]string, 0, len(classes()))
	for n := range classes() {
		names = append(names, n)
	}
	return names
}
