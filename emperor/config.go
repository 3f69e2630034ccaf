package emperor

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Config is an emperor's ini, networks aside.
type Config struct {
	File     string
	Instance string // names everything that is made
	Runtime  string // directory: /run/fiefdom/INSTANCE
	State    string // directory: /var/lib/fiefdom/INSTANCE

	Monitors   []Monitor
	Looking                   // how it looks at inis
	Common     Common         // what it gives to all vassals
	Wrappers   Wrappers       // of vassals' uwsgi
	ChdirAttr  string         // the attribute that says where an app begins; empty: none
	Freq       time.Duration  // between rescans
	Namespaces uintptr        // CLONE_NEW… for every vassal
	Tyrant     bool           // vassals run under the owner of their ini
	PolicyFile string         // what their inis may ask for; empty: what tyrant mode allows
	PolicyPos  ini.Pos        // where that is named
	Policy     *Policy        // as it was read; see ReadPolicy
	SocketMode uint32         // of routers' sockets
	Threads    int            // of the router, that move packets
	BusyPoll   time.Duration  // how long each of them polls before it sleeps, at most; 0: never
	Bridges    []KernelBridge // of the kernel's, that vassals may have devices in
	Hooks      []vassal.Hook
	OnDemand   OnDemand
	Bound      []string // with BoundSet the capabilities that a vassal can have at most
	BoundSet   bool
	Resources  vassal.Resources // of each vassal whose ini does not say
	OOMScore   *int             // likewise
	Confine    vassal.Level     // likewise; empty: as the kind of vassal
	UsersPool  IDPool           // of userns = auto; none: the usual one

	// Of vassals that fail, and those that speak the emperor protocol. 0 means the default.
	Throttle       time.Duration // the second restart's delay
	MaxThrottle    time.Duration // the longest delay
	NoBlacklist    bool          // delays do not grow
	Heartbeat      time.Duration // the longest silence after a heartbeat
	CurseTolerance time.Duration // mercy of vassals whose inis do not say
	Graceful       bool          // at the emperor's end apps may finish what they do

	Orphans string // what becomes of those whom a killed emperor left: adopt or kill

	StartHook string // the program that every vassal's init stage runs first; empty: none
	StopHook  string // the program that runs after every vassal's end

	Stats   string // address of uWSGI's emperor-stats; empty: none
	Metrics string // address of the Prometheus metrics; empty: none
	Web     Web
	LogTo   string // the log's file; empty: standard error
	Log     vassal.Logging

	SyslogAddress string // of log-syslog; empty: the machine's own
	SyslogFormat  string // rfc3164, rfc5424; empty: what is usual at the address

	PIDFile  string // where the emperor's pid stands; empty: nowhere
	ProcName string // that the emperor's process shows; empty: its command line
}

// Parse reads the emperor's own options. The caller reads the networks' from
// the same pairs, and reports keys that nobody knows.
func Parse(f *ini.File) (*Config, ini.Errors) {
	base := filepath.Base(f.Name)
	c := &Config{
		File: f.Name, Instance: strings.TrimSuffix(base, filepath.Ext(base)),
		Freq: 3 * time.Second, SocketMode: 0o600, Threads: routerThreads(runtime.GOMAXPROCS(0)), BusyPoll: 50 * time.Microsecond,
		Orphans: AdoptOrphans,
	}
	errs := ini.Decode(c, Options, f.Pairs)
	errs = append(errs, ini.Decode(&c.Hooks, vassal.HookOptions, f.Pairs)...)
	errs = append(errs, ini.Decode(&c.Hooks, vassal.EmperorHookOptions, f.Pairs)...)
	if c.Tyrant {
		c.Common.User = nil // an owner's ini has his
	}
	if c.Tyrant && c.Common.MagicExec {
		c.Common.MagicExec = false
		errs = append(errs, ini.Error{Pos: ini.Pos{File: f.Name}, Warning: true, Message: "emperor-magic-exec does nothing in tyrant mode: executable inis are read as they are"})
	}
	for _, check := range []func() error{c.checkLog, c.Web.check} {
		if err := check(); err != nil {
			errs = append(errs, ini.Error{Pos: ini.Pos{File: f.Name}, Message: err.Error()})
		}
	}
	if !instanceName().MatchString(c.Instance) {
		errs = append(errs, ini.Error{Pos: ini.Pos{File: f.Name}, Message: fmt.Sprintf(
			"%q cannot name an instance: want up to 64 letters, digits, dots, dashes and underscores; write instance = NAME", c.Instance)})
	}
	if c.Runtime == "" {
		c.Runtime = filepath.Join(runtimeRoot, c.Instance)
	}
	if c.State == "" {
		c.State = filepath.Join(stateRoot, c.Instance)
	}
	return c, errs
}

var instanceName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) })

// Options are the emperor's own options.
var Options = slices.Concat(lookingOptions, commonOptions, wrapperOptions, attributeOptions, logOptions, limitOptions, confineOptions, bridgeOptions, []ini.Option[Config]{
	{
		Name: "emperor", Kind: ini.Path, Since: "0.1", Repeats: true, Set: addMonitor,
		Meaning: "where the vassals' inis are: a directory, dir://DIRECTORY, glob://PATTERN or a pattern; one such as /srv/*/app.ini names its vassals by their folders",
	},
	{
		Name: "emperor-freq", Kind: ini.Duration, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setDuration(&c.Freq, p) },
		Meaning: "seconds between rescans, the net under the kernel's notices (3)",
	},
	{
		Name: "emperor-use-clone", Kind: ini.List, Since: "0.1", Set: setNamespaces,
		Meaning: "namespaces of every vassal: net pid ipc uts fs (or ns, mnt, mount) user",
	},
	{
		Name: "emperor-cap", Aliases: []string{"vassal-cap", "vassals-cap"}, Kind: ini.List, Since: "0.1", Set: setBound,
		Meaning: "the capabilities that vassals and their hooks can have at most (and setpcap, to drop the others)",
	},
	{
		Name: "emperor-tyrant", Kind: ini.Bool, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Tyrant = ini.ParseBool(p.Value); return nil },
		Meaning: "run every vassal under the owner and group of its ini; hooks, cap and other ids are errors there",
	},
	policyOption,
	poolOption,
	{
		Name: "emperor-throttle", Kind: ini.Int, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setMilliseconds(&c.Throttle, p) },
		Meaning: "milliseconds before the second restart of a vassal that dies young; each one after it waits twice as long (100)",
	},
	{
		Name: "emperor-max-throttle", Kind: ini.Int, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setMilliseconds(&c.MaxThrottle, p) },
		Meaning: "milliseconds that a restart waits at most (180000)",
	},
	{
		Name: "emperor-no-blacklist", Kind: ini.Bool, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.NoBlacklist = ini.ParseBool(p.Value); return nil },
		Meaning: "restarts never wait longer than emperor-throttle says",
	},
	{
		Name: "emperor-required-heartbeat", Kind: ini.Duration, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setDuration(&c.Heartbeat, p) },
		Meaning: "seconds that a vassal which has sent a heartbeat may be silent before it is killed (30)",
	},
	{
		Name: "emperor-curse-tolerance", Kind: ini.Duration, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setDuration(&c.CurseTolerance, p) },
		Meaning: "seconds that a vassal has for stopping if its own ini has no reload-mercy (10)",
	},
	{
		Name: "emperor-graceful-shutdown", Kind: ini.Bool, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Graceful = ini.ParseBool(p.Value); return nil },
		Meaning: "when the emperor stops, vassals that speak its protocol may answer the requests that they have begun",
	},
	{
		Name: "vassals-start-hook", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.StartHook = p.Value; return nil },
		Meaning: "a program that every start of a vassal runs first, in its namespaces, with the name of its ini (a.ini); under the owner's uid in tyrant mode. It has 30s, and its result is told and ignored",
	},
	{
		Name: "vassals-stop-hook", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.StopHook = p.Value; return nil },
		Meaning: "a program that runs after every end of a vassal's app, as root, with the name of its ini (a.ini). It has 30s, and the vassal's next start waits for it",
	},
	{
		Name: "emperor-orphans", Kind: ini.Text, Since: "0.1", Set: setOrphans,
		Meaning: "what the next emperor does with the vassals of one that was killed: adopt takes them over as they run, kill ends them and starts anew (adopt)",
	},
	{
		Name: "emperor-stats", Aliases: []string{"emperor-stats-server"}, Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Stats = p.Value; return nil },
		Meaning: "a socket's path or ADDRESS:PORT that tells uWSGI's JSON about the emperor and its vassals, one document a connection",
	},
	{
		Name: "metrics", Kind: ini.Text, Since: "0.1", Set: setMetrics,
		Meaning: "an absolute path or ADDRESS:PORT where Prometheus metrics are served, at /metrics; whoever may connect reads them (a path: root)",
	},
	{
		Name: "emperor-web", Kind: ini.Text, Since: "0.1", Set: setWeb,
		Meaning: "an absolute path or a loopback ADDRESS:PORT where a page about all vassals is served; who may connect to a path reads it (root), at an address who has the key in web.key of the state directory",
	},
	{
		Name: "emperor-web-chmod-socket", Kind: ini.Int, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return c.Web.Rights.SetMode(p.Value) },
		Meaning: "the mode of the web page's socket, in octal (600)",
	},
	{
		Name: "emperor-web-chown-socket", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return c.Web.Rights.SetOwner(p.Value) },
		Meaning: "USER, USER:GROUP or :GROUP: the owner of the web page's socket (root)",
	},
	{
		Name: "logto", Aliases: []string{"logto2"}, Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setPath(&c.LogTo, p) },
		Meaning: "the file that the emperor's log is appended to, instead of standard error, once it has the instance",
	},
	{
		Name: "emperor-pidfile", Aliases: []string{"pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"}, Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setPath(&c.PIDFile, p) },
		Meaning: "the file that has the emperor's pid as long as he runs",
	},
	{
		Name: "emperor-procname", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.ProcName = p.Value; return nil },
		Meaning: "the name that ps and top show for the emperor's process; of a longer one than its command line they show the beginning",
	},
	{
		Name: "emperor-on-demand-extension", Aliases: []string{"emperor-on-demand-ext"}, Kind: ini.Text, Since: "0.1", Set: setDemandExtension,
		Meaning: "a vassal with a file INI+EXTENSION begins with the first connection to the socket whose address (a path, @NAME, ADDRESS:PORT) is in that file; the app finds the socket as its descriptor 0",
	},
	{
		Name: "emperor-on-demand-directory", Aliases: []string{"emperor-on-demand-dir"}, Kind: ini.Path, Since: "0.1", Set: setDemandDirectory,
		Meaning: "every vassal begins with the first connection to NAME.socket in this directory",
	},
	{
		Name: "emperor-on-demand-exec", Kind: ini.Command, Since: "0.1", Set: setDemandExec,
		Meaning: "a command for the shell that gets an ini's name and prints the address of the socket whose first connection starts the vassal, or nothing",
	},
	{
		Name: "emperor-on-demand-chmod-socket", Kind: ini.Int, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return c.OnDemand.Rights.SetMode(p.Value) },
		Meaning: "the mode of the sockets that wake vassals whose inis have no chmod-socket, in octal (666)",
	},
	{
		Name: "emperor-on-demand-chown-socket", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return c.OnDemand.Rights.SetOwner(p.Value) },
		Meaning: "USER, USER:GROUP or :GROUP: the owner of the sockets that wake vassals whose inis have no chown-socket (the app's user and group; in tyrant mode the user is the ini's owner)",
	},
	{
		Name: "instance", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.Instance = p.Value; return nil },
		Meaning: "the instance's name (the ini's base name)",
	},
	{
		Name: "runtime-dir", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setDir(&c.Runtime, p) },
		Meaning: "the directory of sockets and pipes (/run/fiefdom/INSTANCE)",
	},
	{
		Name: "state-dir", Kind: ini.Path, Since: "0.1", Set: func(c *Config, p ini.Pair) error { return setDir(&c.State, p) },
		Meaning: "the directory of leases and other lasting state (/var/lib/fiefdom/INSTANCE)",
	},
	{
		Name: "chmod-socket", Kind: ini.Int, Since: "0.1", Set: setSocketMode,
		Meaning: "the mode of routers' sockets, in octal (600)",
	},
	{
		Name: "router-threads", Kind: ini.Int, Since: "0.1", Set: setThreads,
		Meaning: "how many threads of the router move packets, 1 to 64 (half as many as there are CPUs, 4 at most)",
	},
	{
		Name: "router-busy-poll", Kind: ini.Duration, Since: "0.1", Set: setBusyPoll,
		Meaning: "how long the router polls for the next packet where they come close upon each other, at most, up to 1ms (50us; 0: never)",
	},
})

// MaxThreads bounds the router's threads; more could only be a typo. The router
// itself takes no more.
const MaxThreads = 64

// routerThreads is the default on a machine with so many CPUs: the other half
// is for the vassals, who make the packets.
func routerThreads(cpus int) int { return min(max(1, cpus/2), 4) }

func setThreads(c *Config, p ini.Pair) error {
	n, err := strconv.Atoi(p.Value)
	if err != nil || n < 1 || n > MaxThreads {
		return fmt.Errorf("%s = %s: want a number from 1 to %d", p.Key, p.Value, MaxThreads)
	}
	c.Threads = n
	return nil
}

func setBusyPoll(c *Config, p ini.Pair) error {
	d, err := ini.ParseDuration(p.Value)
	if err != nil || d > time.Millisecond {
		return fmt.Errorf("%s = %s: want a time up to 1ms such as 50us, or 0", p.Key, p.Value)
	}
	c.BusyPoll = d
	return nil
}

func setDuration(dst *time.Duration, p ini.Pair) error {
	d, err := ini.ParseDuration(p.Value)
	if err != nil || d <= 0 {
		return fmt.Errorf("%s = %s: want seconds (3) or a number with a unit (500ms)", p.Key, p.Value)
	}
	*dst = d
	return nil
}

// maxThrottle bounds delays; doubled as often as a back-off does, more would
// not fit into a Duration.
const maxThrottle = 24 * time.Hour

// setMilliseconds takes uWSGI's plain numbers, and times with a unit. A
// throttle of nothing would let a vassal that fails keep the machine busy.
func setMilliseconds(dst *time.Duration, p ini.Pair) error {
	text := p.Value
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		text += "ms"
	}
	d, err := ini.ParseDuration(text)
	if err != nil || d > maxThrottle {
		return fmt.Errorf("%s = %s: want milliseconds (1000) or a number with a unit (1s), at most a day", p.Key, p.Value)
	}
	*dst = max(d, time.Millisecond)
	return nil
}

// heartbeat is the longest silence after a heartbeat.
func (c *Config) heartbeat() time.Duration { return cmp.Or(c.Heartbeat, 30*time.Second) }

func setDir(dst *string, p ini.Pair) error {
	if !filepath.IsAbs(p.Value) {
		return fmt.Errorf("%s = %s: want an absolute path", p.Key, p.Value)
	}
	*dst = filepath.Clean(p.Value)
	return nil
}

// setPath takes a path as uWSGI does: from where the emperor was started.
func setPath(dst *string, p ini.Pair) error {
	path, err := filepath.Abs(p.Value)
	if p.Value == "" || err != nil {
		return errors.Join(fmt.Errorf("%s: want the path of a file", p.Key), err)
	}
	*dst = path
	return nil
}

func setSocketMode(c *Config, p ini.Pair) error {
	var mode uint32
	if p.Value == "" || p.Value == "true" {
		mode = 0o666 // uWSGI's chmod-socket without a value
	} else {
		n, err := strconv.ParseUint(p.Value, 8, 9)
		if err != nil {
			return fmt.Errorf("%s = %s: want octal digits such as 660", p.Key, p.Value)
		}
		mode = uint32(n)
	}
	c.SocketMode = mode
	return nil
}

func addMonitor(c *Config, p ini.Pair) error {
	m, err := parseMonitor(p.Value)
	if err != nil {
		return err
	}
	c.Monitors = append(c.Monitors, m)
	return nil
}

func setNamespaces(c *Config, p ini.Pair) (err error) {
	c.Namespaces, err = vassal.ParseNamespaces(p.Value)
	return err
}
