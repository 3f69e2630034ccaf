package vassal

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"fiefdom/internal/ini"
)

// Attached is one more process of a vassal that is no uwsgi: a daemon that is
// kept running beside the command, or a job of cron.
type Attached struct {
	Name    string `json:"name"`           // made of the command; no other attached process of the vassal has it
	Command string `json:"command"`        // for the shell
	Cron    *Cron  `json:"cron,omitempty"` // when it runs; nil: always

	Control   bool          `json:"control,omitempty"`   // its end is the vassal's
	Pidfile   string        `json:"pidfile,omitempty"`   // it goes into the background and writes its pid here
	Daemonize bool          `json:"daemonize,omitempty"` // it stays in the foreground; we write Pidfile
	Freq      time.Duration `json:"freq,omitempty"`      // the time for writing Pidfile
	Touch     []string      `json:"touch,omitempty"`     // files; a touch restarts it

	StopSignal   int           `json:"stop_signal,omitempty"`   // 0 is TERM
	ReloadSignal int           `json:"reload_signal,omitempty"` // instead, when the vassal stops to start anew; 0: the same
	MaxThrottle  time.Duration `json:"max_throttle,omitempty"`  // the longest back-off; 0: as of a vassal

	UID    *Identity `json:"uid,omitempty"` // nil: the vassal's
	GID    *Identity `json:"gid,omitempty"`
	Chdir  string    `json:"chdir,omitempty"`
	Stdin  bool      `json:"stdin,omitempty"`   // it has the vassal's stdin: the door, if it is on demand
	NewPID bool      `json:"new_pid,omitempty"` // a pid namespace of its own

	Pos ini.Pos `json:"pos"`
}

// defaultFreq is uWSGI's number of checks, one a second, for a pidfile.
const defaultFreq = 10 * time.Second

// attachments is what the options of attached processes fill in.
type attachments struct {
	all     []Attached
	timeout time.Duration // of jobs that say nothing about theirs
}

func (a *attachments) add(p ini.Pair, d Attached) error {
	d.Command, d.Pos = strings.TrimSpace(d.Command), p.Pos
	if d.Command == "" {
		return fmt.Errorf("%q has no command", p.Value)
	}
	d.Name = a.freeName(d.Command)
	a.all = append(a.all, d)
	return nil
}

// freeName is the base name of the command's program, with a number if
// another process has it.
func (a *attachments) freeName(command string) string {
	words := strings.Fields(command)
	if len(words) > 1 && words[0] == "exec" {
		words = words[1:]
	}
	base := ""
	for _, r := range path.Base(words[0]) {
		plain := r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !plain || len(base) == maxProcessName {
			break
		}
		base += string(r)
	}
	base = strings.TrimLeft(base, ".")
	if base == "" {
		base = "shell"
	}
	name := base
	for n := 2; slices.ContainsFunc(a.all, func(d Attached) bool { return d.Name == name }); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name
}

// maxProcessName is the length in bytes that a name is cut to, its number aside.
const maxProcessName = 32

// AttachOptions are the options of attached processes. They are a uwsgi's own
// where the vassal is one.
var AttachOptions = []ini.Option[attachments]{
	{
		Name: "attach-daemon", Kind: ini.Command, Since: "0.1", Repeats: true, Set: attachDaemon,
		Meaning: "a command for the shell that is kept running beside the vassal's command, or without one, in the same jail",
	},
	{
		Name: "attach-control-daemon", Kind: ini.Command, Since: "0.1", Repeats: true, Set: attachDaemon,
		Meaning: "as attach-daemon; its end is the end of all the vassal's processes, which start anew",
	},
	{
		Name: "attach-daemon2", Kind: ini.Command, Since: "0.1", Repeats: true, Set: attachDaemon2,
		Meaning: "as attach-daemon, by KEY=VALUE,…: cmd (command, exec), control, pidfile, freq, daemonize (daemon), touch, stopsignal, reloadsignal, uid, gid, ns_pid, chdir, max_throttle, stdin (the socket of an on demand vassal), notifypid; a comma of a value is written \\,",
	},
	{
		Name: "smart-attach-daemon", Kind: ini.Command, Since: "0.1", Repeats: true, Set: smartAttachDaemon,
		Meaning: "PIDFILE[,SECONDS] COMMAND: as attach-daemon, for a command that goes into the background by itself and writes its pid into PIDFILE within SECONDS (10)",
	},
	{
		Name: "smart-attach-daemon2", Kind: ini.Command, Since: "0.1", Repeats: true, Set: smartAttachDaemon,
		Meaning: "PIDFILE[,SECONDS] COMMAND: as attach-daemon, for a command that stays in the foreground; its pid is written into PIDFILE for it",
	},
	{
		Name: "cron", Kind: ini.Command, Since: "0.1", Repeats: true, Set: addCron,
		Meaning: "MINUTE HOUR DAY MONTH WEEKDAY COMMAND: a command for the shell that runs in the jail at these times of the emperor's clock; -1 is any, -N every N",
	},
	{
		Name: "unique-cron", Kind: ini.Command, Since: "0.1", Repeats: true, Set: addCron,
		Meaning: "as cron; it is not started while it still runs",
	},
	{
		Name: "cron2", Kind: ini.Command, Since: "0.1", Repeats: true, Set: addCron2,
		Meaning: "[KEY=VALUE,…] COMMAND: as cron, by minute, hour, day, month, week (each -1), unique, harakiri (timeout, in seconds)",
	},
	{
		Name: "cron-harakiri", Kind: ini.Duration, Since: "0.1", Set: setCronTimeout,
		Meaning: "the time after which a job of cron is killed, if it says nothing about that (never)",
	},
}

// legionOptions run a command on the lord of a legion alone.
var legionOptions = []string{
	"legion-attach-daemon", "legion-smart-attach-daemon", "legion-smart-attach-daemon2",
	"legion-cron", "cron-legion", "unique-legion-cron", "unique-cron-legion",
}

// attach reads the attached processes of a vassal that is no uwsgi.
func (c *Config) attach(pairs []ini.Pair) ini.Errors {
	if len(c.App) > 0 {
		return nil
	}
	var a attachments
	errs := ini.Decode(&a, AttachOptions, pairs)
	for _, p := range pairs {
		if slices.Contains(legionOptions, p.Key) {
			errs = append(errs, ini.Error{Pos: p.Pos, Message: fmt.Sprintf(
				"%s: a command has no legion whose lord could run it; write %s", p.Key, strings.Replace(strings.Replace(p.Key, "legion-", "", 1), "-legion", "", 1))})
		}
	}
	for i := range a.all {
		if cron := a.all[i].Cron; cron != nil && cron.Timeout == 0 {
			cron.Timeout = a.timeout
		} else if cron != nil {
			cron.Timeout = max(cron.Timeout, 0)
		}
	}
	c.Attached = a.all
	return errs
}

func attachDaemon(a *attachments, p ini.Pair) error {
	return a.add(p, Attached{Command: p.Value, Control: p.Key == "attach-control-daemon"})
}

func smartAttachDaemon(a *attachments, p ini.Pair) error {
	file, command, ok := strings.Cut(p.Value, " ")
	if !ok {
		return fmt.Errorf("%q: want PIDFILE[,SECONDS] COMMAND", p.Value)
	}
	d := Attached{Command: command, Freq: defaultFreq, Daemonize: p.Key == "smart-attach-daemon2"}
	var seconds string
	if d.Pidfile, seconds, ok = strings.Cut(file, ","); ok {
		if err := setTime(&d.Freq, seconds); err != nil {
			return err
		}
	}
	if d.Pidfile == "" {
		return fmt.Errorf("%q: want PIDFILE[,SECONDS] COMMAND", p.Value)
	}
	return a.add(p, d)
}

func setTime(dst *time.Duration, text string) error {
	d, err := ini.ParseDuration(text)
	if err != nil {
		return err
	}
	*dst = d
	return nil
}

func attachDaemon2(a *attachments, p ini.Pair) error {
	pairs, err := keyValues(p.Value)
	if err != nil {
		return err
	}
	d := Attached{Freq: defaultFreq}
	for _, kv := range pairs {
		if err := d.set(kv[0], ini.Pair{Key: kv[0], Value: kv[1], Pos: p.Pos}); err != nil {
			return fmt.Errorf("%s: %w", kv[0], err)
		}
	}
	if d.Command == "" {
		return fmt.Errorf("%q has no command; write cmd=COMMAND", p.Value)
	}
	if d.Daemonize && d.Pidfile == "" {
		d.Daemonize = false // nobody wants to know its pid
	}
	return a.add(p, d)
}

// set is one key of attach-daemon2.
func (d *Attached) set(key string, p ini.Pair) error {
	switch key {
	case "cmd", "command", "exec":
		d.Command = p.Value
	case "control":
		d.Control = ini.ParseBool(p.Value)
	case "daemonize", "daemon":
		d.Daemonize = ini.ParseBool(p.Value)
	case "ns_pid":
		d.NewPID = ini.ParseBool(p.Value)
	case "stdin":
		d.Stdin = ini.ParseBool(p.Value)
	case "notifypid": // every daemon is told about a reload or stop
	case "pidfile":
		d.Pidfile = p.Value
	case "chdir":
		return absolute("chdir", &d.Chdir, p)
	case "touch":
		for file := range strings.SplitSeq(p.Value, ";") {
			if file = strings.TrimSpace(file); file != "" {
				d.Touch = append(d.Touch, file)
			}
		}
	case "freq":
		return setTime(&d.Freq, p.Value)
	case "max_throttle":
		return setTime(&d.MaxThrottle, p.Value)
	case "stopsignal", "stop_signal":
		return setSignalNumber(&d.StopSignal, p.Value)
	case "reloadsignal", "reload_signal":
		return setSignalNumber(&d.ReloadSignal, p.Value)
	case "uid", "gid":
		var ids Config
		err := setUID
		if key == "gid" {
			err = setGID
		}
		if err := err(&ids, p); err != nil {
			return err
		}
		d.UID, d.GID = orElse(ids.UID, d.UID), orElse(ids.GID, d.GID)
	default:
		return fmt.Errorf("no such key; want cmd, control, pidfile, freq, daemonize, touch, stopsignal, reloadsignal, uid, gid, ns_pid, chdir, max_throttle, stdin or notifypid (and \\, for a comma of a value)")
	}
	return nil
}

func orElse(a, b *Identity) *Identity {
	if a != nil {
		return a
	}
	return b
}

func setSignalNumber(dst *int, text string) error {
	sig, err := parseSignal(text)
	*dst = int(sig)
	return err
}

// keyValues reads a list of uWSGI's: KEY=VALUE with commas between them, where
// a backslash takes the next byte as it is.
func keyValues(s string) ([][2]string, error) {
	var items []string
	var item strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			item.WriteByte(s[i])
		case s[i] == ',':
			items = append(items, item.String())
			item.Reset()
		default:
			item.WriteByte(s[i])
		}
	}
	var pairs [][2]string
	for _, text := range append(items, item.String()) {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case ok:
			pairs = append(pairs, [2]string{strings.TrimSpace(key), strings.TrimSpace(value)})
		case strings.TrimSpace(text) != "":
			return nil, fmt.Errorf("%q is no KEY=VALUE (write a comma of a value as \\,)", text)
		}
	}
	return pairs, nil
}

// Bounds of attached processes: an owner must not cost the emperor more than
// an app needs.
const (
	maxAttached = 64
	maxTouch    = 16 // files of one process, each looked at every second
	maxWait     = time.Hour
)

// check says what no ini can have given. The processes before it are those
// whose names it must not have.
func (d *Attached) check(before []Attached) error {
	switch {
	case d.Command == "" || len(d.Command) > maxPath || hasNUL(d.Command):
		return fmt.Errorf("attached command %.100q: want 1 to %d bytes and no NUL", d.Command, maxPath)
	case d.Name == "" || len(d.Name) > 2*maxProcessName || strings.ContainsAny(d.Name, "/\x00") || strings.HasPrefix(d.Name, "."):
		return fmt.Errorf("%.100q is no name of an attached process", d.Name)
	case slices.ContainsFunc(before, func(b Attached) bool { return b.Name == d.Name }):
		return fmt.Errorf("two attached processes have the name %q", d.Name)
	case len(d.Pidfile) > maxPath || hasNUL(d.Pidfile) || len(d.Chdir) > maxPath || hasNUL(d.Chdir):
		return fmt.Errorf("a path of attached process %s has more than %d bytes, or a NUL", d.Name, maxPath)
	case d.Chdir != "" && !path.IsAbs(d.Chdir):
		return fmt.Errorf("chdir %.100q: want an absolute path", d.Chdir)
	case d.StopSignal < 0 || d.StopSignal > maxSignal || d.ReloadSignal < 0 || d.ReloadSignal > maxSignal:
		return fmt.Errorf("attached process %s: want signals from 1 to %d", d.Name, maxSignal)
	case d.Freq < 0 || d.Freq > maxWait || d.MaxThrottle < 0 || d.MaxThrottle > maxWait:
		return fmt.Errorf("attached process %s: a time of more than %s, or less than none", d.Name, maxWait)
	case d.Daemonize && d.Pidfile == "":
		return fmt.Errorf("attached process %s: no pidfile to write", d.Name)
	case d.NewPID && d.Pidfile != "":
		return fmt.Errorf("attached process %s: in a pid namespace of its own its pid means nothing to others; leave ns_pid or the pidfile out", d.Name)
	case len(d.Touch) > maxTouch || slices.ContainsFunc(d.Touch, func(f string) bool { return len(f) > maxPath || hasNUL(f) }):
		return fmt.Errorf("attached process %s: want at most %d files to touch, of at most %d bytes", d.Name, maxTouch, maxPath)
	case d.Cron != nil && (d.Pidfile != "" || d.Control || len(d.Touch) > 0):
		return fmt.Errorf("job %s has what only a daemon has", d.Name)
	case d.Cron != nil:
		return d.Cron.check()
	}
	return nil
}

// Smart says that the process is followed by its pidfile.
func (d *Attached) Smart() bool { return d.Pidfile != "" && !d.Daemonize }

// Signal is the signal that asks the process to stop; reload says that the
// vassal will be started anew.
func (d *Attached) Signal(reload bool) syscall.Signal {
	switch {
	case reload && d.ReloadSignal != 0:
		return syscall.Signal(d.ReloadSignal)
	case d.StopSignal != 0:
		return syscall.Signal(d.StopSignal)
	}
	return syscall.SIGTERM
}
