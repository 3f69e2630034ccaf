package vassal

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/logfile"
)

// lateLogOption is uWSGI's second word for logto.
var lateLogOption = ini.Option[Config]{
	Name: "logto2", Kind: ini.Path, Since: "0.1",
	Set: func(c *Config, p ini.Pair) error {
		c.Log.Late = true
		return absolute("logto2", &c.LogTo, p)
	},
	Meaning: "logto with the rights of the app's user, who needs those for its folder too if it is rotated",
}

// LogOptions are the options of a log. The tables of the emperor's and the
// vassals' options have them both.
func LogOptions[T any](of func(*T) *Logging) []ini.Option[T] {
	with := func(name string, kind ini.Kind, meaning string, set func(*Logging, ini.Pair) error) ini.Option[T] {
		return ini.Option[T]{Name: name, Kind: kind, Since: "0.1", Meaning: meaning, Set: func(t *T, p ini.Pair) error { return set(of(t), p) }}
	}
	flag := func(name, meaning string, field func(*Logging) *bool) ini.Option[T] {
		return with(name, ini.Bool, meaning, func(l *Logging, p ini.Pair) error {
			*field(l) = ini.ParseBool(p.Value)
			return nil
		})
	}
	touch := func(name, meaning string, field func(*Logging) *[]string) ini.Option[T] {
		o := with(name, ini.Path, meaning, func(l *Logging, p ini.Pair) error {
			var path string
			err := absolute(name, &path, p)
			*field(l) = append(*field(l), path)
			return err
		})
		o.Repeats = true
		return o
	}
	return []ini.Option[T]{
		with("log-maxsize", ini.Text, "the size at which the file of logto is rotated, in bytes or such as 10M (64K at least); it never grows beyond it", setLogSize),
		with("log-maxage", ini.Duration, "the age at which the file of logto is rotated, when the next line comes, such as 24h or 7d", setLogAge),
		with("log-backups", ini.Int, "how many rotated files are kept (10; 0: all)", setLogBackups),
		with("log-backupname", ini.Text, "the name of the rotated file, in the folder of logto; then only one is kept (without it NAME.SECONDS)", setBackupName),
		flag("log-compress", "compress rotated files by gzip", func(l *Logging) *bool { return &l.Compress }),
		flag("log-truncate", "begin with an empty file of logto at each start", func(l *Logging) *bool { return &l.Truncate }),
		flag("log-reopen", "open the file of logto anew after a reload, too, not only at each start", func(l *Logging) *bool { return &l.Reopen }),
		touch("touch-logreopen", "open the file of logto anew when this file is touched; that it was moved away is noticed without, within a second", func(l *Logging) *[]string { return &l.TouchReopen }),
		touch("touch-logrotate", "rotate the file of logto when this file is touched", func(l *Logging) *[]string { return &l.TouchRotate }),
		flag("log-syslog", "send the log to syslog, beside logto: to the one that log-syslog-address of the emperor's ini names, as fiefdom, a vassal's output as fiefdom/NAME", func(l *Logging) *bool { return &l.Syslog }),
	}
}

func setLogSize(l *Logging, p ini.Pair) error {
	n, err := parseSize(p.Value)
	if n > 0 {
		n = max(n, logfile.MinSize)
	}
	l.MaxSize = n
	return err
}

func setLogAge(l *Logging, p ini.Pair) error {
	text, factor := p.Value, time.Duration(1)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text, factor = days+"h", 24
	}
	d, err := ini.ParseDuration(text)
	if err != nil || d > maxLogAge/factor {
		return fmt.Errorf("%q is no age of a log: want a time such as 24h or 7d", p.Value)
	}
	l.MaxAge = d * factor
	return nil
}

func setLogBackups(l *Logging, p ini.Pair) error {
	n, err := ini.ParseInt(p.Value)
	if err != nil || n < 0 || n > maxBackups {
		return fmt.Errorf("%q: want a number from 1 to %d, or 0 for all", p.Value, maxBackups)
	}
	l.Backups = &n
	return nil
}

func setBackupName(l *Logging, p ini.Pair) error {
	if p.Value == "" {
		return errors.New("it is empty; leave it out")
	}
	l.BackupName = p.Value
	return nil
}
