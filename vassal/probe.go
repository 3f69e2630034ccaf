package vassal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/shlex"

	"fiefdom/internal/ini"
)

// Probe is a way to ask an app how it is, from inside its jail.
type Probe struct {
	Kind    ProbeKind     `json:"kind,omitempty"`
	Port    uint16        `json:"port,omitempty"`    // of tcp and http
	Path    string        `json:"path,omitempty"`    // of http, with its slash
	Command []string      `json:"command,omitempty"` // of exec
	Delay   time.Duration `json:"delay,omitempty"`   // of delay
}

// ProbeKind says how a Probe asks.
type ProbeKind string

// The kinds; "" asks nothing.
const (
	ProbeTCP    ProbeKind = "tcp"    // a connection
	ProbeHTTP   ProbeKind = "http"   // GET, answered by a status below 400
	ProbeExec   ProbeKind = "exec"   // a command in the jail, which ends with code 0
	ProbeDelay  ProbeKind = "delay"  // time that goes by; of Ready
	ProbeNotify ProbeKind = "notify" // the app says so itself (sd_notify(3)); of Ready
)

// Ready says when a vassal that has started is ready.
type Ready struct {
	Probe
	Timeout time.Duration `json:"timeout,omitempty"` // 0: DefaultReadyTimeout
}

// Health says how a ready vassal is asked whether it is well.
type Health struct {
	Probe
	Interval time.Duration `json:"interval,omitempty"` // between the beginnings of two checks; 0: DefaultInterval
	Timeout  time.Duration `json:"timeout,omitempty"`  // of one check; 0: 5s, or the interval if that is shorter
	Count    int           `json:"count,omitempty"`    // failures in a row until it is unhealthy; 0: DefaultCount
}

// What holds where the ini says nothing.
const (
	DefaultReadyTimeout = time.Minute
	DefaultInterval     = 10 * time.Second
	DefaultCount        = 3
	defaultTimeout      = 5 * time.Second
)

// Bounds of probes: a check costs the emperor work.
const (
	minInterval    = 100 * time.Millisecond
	maxProbeTime   = 24 * time.Hour
	maxProbeCount  = 1000
	maxProbePath   = 2048  // bytes
	maxProbeWords  = 1000  // of a command
	maxProbeLength = 16384 // bytes of a command
)

// Every is Interval or its default.
func (h *Health) Every() time.Duration {
	if h.Interval > 0 {
		return h.Interval
	}
	return DefaultInterval
}

// Within is Timeout or its default.
func (h *Health) Within() time.Duration {
	if h.Timeout > 0 {
		return h.Timeout
	}
	return min(defaultTimeout, h.Every())
}

// Failures is Count or its default.
func (h *Health) Failures() int {
	if h.Count > 0 {
		return h.Count
	}
	return DefaultCount
}

// Within is Timeout or its default.
func (r *Ready) Within() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return DefaultReadyTimeout
}

// probeOptions are part of Options.
var probeOptions = []ini.Option[Config]{
	{
		Name: "ready", Kind: ini.Text, Since: "0.1", Set: setReady,
		Meaning: "when the vassal is ready, and until then starting: tcp:PORT (a connection), http:PORT/PATH (a status below 400), exec:COMMAND (code 0; in the jail, under the app's user), delay:SECONDS, or notify (the app says READY=1 to NOTIFY_SOCKET, as sd_notify does). Asked inside the jail, at 127.0.0.1 and the vassal's addresses",
	},
	probeTime("ready-timeout", "the time that the vassal has for becoming ready; then its start has failed (60s)", func(c *Config) *time.Duration { return &c.Ready.Timeout }),
	{
		Name: "health", Kind: ini.Text, Since: "0.1", Set: setHealth,
		Meaning: "how to ask the ready vassal whether it is well: tcp:PORT, http:PORT/PATH or exec:COMMAND, as in ready; an unhealthy one is killed and started again. A hung app still takes connections: ask it by http or exec",
	},
	probeTime("health-interval", "the time between two checks (10s)", func(c *Config) *time.Duration { return &c.Health.Interval }),
	probeTime("health-timeout", "the time that a check has, at most health-interval (5s)", func(c *Config) *time.Duration { return &c.Health.Timeout }),
	probeTime("watchdog", "the app says WATCHDOG=1 to NOTIFY_SOCKET at least that often (WATCHDOG_USEC), else it is killed and started again", func(c *Config) *time.Duration { return &c.Watchdog }),
	{
		Name: "health-count", Kind: ini.Int, Since: "0.1", Set: setCount,
		Meaning: "checks that fail in a row before the vassal is unhealthy (3)",
	},
}

func probeTime(name, meaning string, field func(*Config) *time.Duration) ini.Option[Config] {
	return ini.Option[Config]{
		Name: name, Kind: ini.Duration, Since: "0.1", Meaning: meaning,
		Set: func(c *Config, p ini.Pair) error {
			d, err := ini.ParseDuration(p.Value)
			if err != nil || d < minInterval || d > maxProbeTime {
				return fmt.Errorf("%q: want seconds (10) or a number with a unit (500ms), from %s to %s", p.Value, minInterval, maxProbeTime)
			}
			*field(c) = d
			return nil
		},
	}
}

func setCount(c *Config, p ini.Pair) error {
	n, err := ini.ParseInt(p.Value)
	if err != nil || n < 1 || n > maxProbeCount {
		return fmt.Errorf("%q: want a number from 1 to %d", p.Value, maxProbeCount)
	}
	c.Health.Count = n
	return nil
}

func setReady(c *Config, p ini.Pair) error {
	probe, err := parseProbe(p.Value)
	if err == nil {
		c.Ready.Probe = probe
	}
	return err
}

func setHealth(c *Config, p ini.Pair) error {
	probe, err := parseProbe(p.Value)
	if err == nil && (probe.Kind == ProbeDelay || probe.Kind == ProbeNotify) {
		err = fmt.Errorf("%q says nothing of the app; want tcp:PORT, http:PORT/PATH or exec:COMMAND (or the option watchdog, for an app that notifies)", p.Value)
	}
	if err == nil {
		c.Health.Probe = probe
	}
	return err
}

// Notifies says whether the app gets a socket to tell how it is.
func (c *Config) Notifies() bool { return c.Ready.Kind == ProbeNotify || c.Watchdog > 0 }

func parseProbe(text string) (Probe, error) {
	kind, rest, _ := strings.Cut(text, ":")
	rest = strings.TrimSpace(rest)
	p := Probe{Kind: ProbeKind(strings.TrimSpace(kind))}
	var err error
	switch p.Kind {
	case ProbeTCP:
		p.Port, err = parsePort(rest)
	case ProbeHTTP:
		port, path, _ := strings.Cut(rest, "/")
		p.Path = "/" + path
		p.Port, err = parsePort(port)
	case ProbeExec:
		p.Command, err = shlex.Split(rest)
	case ProbeDelay:
		if p.Delay, err = ini.ParseDuration(rest); err != nil {
			err = fmt.Errorf("%q is no time: want seconds (10) or a number with a unit (500ms)", rest)
		}
	case ProbeNotify:
	default:
		return Probe{}, fmt.Errorf("%q: want tcp:PORT, http:PORT/PATH, exec:COMMAND, delay:SECONDS or notify", text)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Probe{}, fmt.Errorf("%q: %w", text, err)
	}
	return p, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port: want 1 to 65535", text)
	}
	return uint16(n), nil
}

// check says what no ini can have given.
func (p *Probe) check() error {
	switch p.Kind {
	case "", ProbeNotify:
		return nil
	case ProbeTCP, ProbeHTTP:
		if p.Port == 0 {
			return errors.New("no port")
		}
		if strings.ContainsFunc(p.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || len(p.Path) > maxProbePath {
			return errors.New("the path must be of printable ASCII without spaces (write others as %20), at most 2048 bytes")
		}
	case ProbeExec:
		if len(p.Command) == 0 || len(p.Command) > maxProbeWords {
			return errors.New("no command; want exec:PROGRAM [ARGUMENT...], quoted as in a shell")
		}
		if len(strings.Join(p.Command, " ")) > maxProbeLength {
			return fmt.Errorf("the command is longer than %d bytes; put it into a file", maxProbeLength)
		}
	case ProbeDelay:
		if p.Delay < 0 || p.Delay > maxProbeTime {
			return fmt.Errorf("want a delay of at most %s", maxProbeTime)
		}
	default:
		return errors.New("nobody knows how to ask so")
	}
	return nil
}

func (c *Config) checkProbes() error {
	r, h := &c.Ready, &c.Health
	if err := errors.Join(r.check(), h.check()); err != nil {
		return err
	}
	for _, d := range []time.Duration{r.Timeout, h.Interval, h.Timeout, c.Watchdog} {
		if d != 0 && (d < minInterval || d > maxProbeTime) {
			return fmt.Errorf("time %s of a check: want %s to %s", d, minInterval, maxProbeTime)
		}
	}
	switch {
	case h.Count < 0 || h.Count > maxProbeCount:
		return fmt.Errorf("health-count %d: want 1 to %d", h.Count, maxProbeCount)
	case h.Kind == ProbeDelay || h.Kind == ProbeNotify:
		return errors.New("health = delay or notify says nothing of the app")
	case h.Within() > h.Every():
		return fmt.Errorf("health-timeout %s is longer than health-interval %s: a check must be over before the next; make the interval longer", h.Within(), h.Every())
	case r.Kind == ProbeDelay && r.Delay > r.Within():
		return fmt.Errorf("ready = delay:%s is longer than ready-timeout %s; make that longer", r.Delay, r.Within())
	case c.Watchdog > 0 && len(c.Attached) > 0:
		return errors.New("watchdog and attached processes exclude each other; give the command an ini of its own, or use health")
	case r.Kind != "" && len(c.Attached) > 0:
		return errors.New("ready and attached processes exclude each other; give the command an ini of its own, or use health alone")
	}
	return nil
}
