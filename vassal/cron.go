package vassal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"fiefdom/internal/ini"
)

// Cron says when a job runs, as uWSGI does: a number is that minute, hour and
// so on; -1 is any, -N every one that N divides. With a day and a weekday
// either is enough.
type Cron struct {
	Minute int `json:"minute"`
	Hour   int `json:"hour"`
	Day    int `json:"day"`
	Month  int `json:"month"`
	Week   int `json:"week"` // of the week: 0 and 7 are Sunday

	Unique  bool          `json:"unique,omitempty"`  // not while it still runs
	Timeout time.Duration `json:"timeout,omitempty"` // after which it is killed; 0: never
}

// noTimeout is a Timeout of nobody, as the ini says: the default is not meant.
const noTimeout = -1

// fields are the five numbers in their order, with what they may be at most.
func (c *Cron) fields() []cronField {
	return []cronField{
		{"minute", &c.Minute, 0, 59},
		{"hour", &c.Hour, 0, 23},
		{"day", &c.Day, 1, 31},
		{"month", &c.Month, 1, 12},
		{"week", &c.Week, 0, 7},
	}
}

type cronField struct {
	name     string
	value    *int
	min, max int
}

func (f cronField) set(text string) error {
	n, err := ini.ParseInt(text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	*f.value = n
	return f.check()
}

func (f cronField) check() error {
	if n := *f.value; n > f.max || n >= 0 && n < f.min || n < -f.max-1 {
		return fmt.Errorf("%s %d: want %d to %d, -1 for any, or -N for every N up to %d", f.name, n, f.min, f.max, f.max+1)
	}
	return nil
}

func (c *Cron) check() error {
	for _, f := range c.fields() {
		if err := f.check(); err != nil {
			return err
		}
	}
	if c.Timeout < 0 {
		return fmt.Errorf("timeout %s is less than no time", c.Timeout)
	}
	return nil
}

// Matches says whether the job runs in the minute of t, by t's own clock.
func (c *Cron) Matches(t time.Time) bool {
	is := func(want, now int) bool {
		if want < 0 {
			return now%-want == 0
		}
		return want == now
	}
	day, week := is(c.Day, t.Day()), is(c.Week%7, int(t.Weekday()))
	if c.Week < 0 {
		week = is(c.Week, int(t.Weekday()))
	}
	both := day && week
	if c.Day >= 0 && c.Week >= 0 {
		both = day || week
	}
	return both && is(c.Minute, t.Minute()) && is(c.Hour, t.Hour()) && is(c.Month, int(t.Month()))
}

func addCron(a *attachments, p ini.Pair) error {
	c := &Cron{Unique: p.Key == "unique-cron"}
	rest := p.Value
	for _, f := range c.fields() {
		rest = strings.TrimLeft(rest, " \t")
		end := strings.IndexAny(rest, " \t")
		if end < 0 {
			return fmt.Errorf("%q: want MINUTE HOUR DAY MONTH WEEKDAY COMMAND", p.Value)
		}
		if err := f.set(rest[:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	return a.add(p, Attached{Command: rest, Cron: c})
}

// addCron2 reads KEY=VALUE,… COMMAND. As for uWSGI, a first word without "="
// is the command's.
func addCron2(a *attachments, p ini.Pair) error {
	c := &Cron{Minute: -1, Hour: -1, Day: -1, Month: -1, Week: -1}
	first, command, more := strings.Cut(strings.TrimSpace(p.Value), " ")
	if !strings.Contains(first, "=") {
		return a.add(p, Attached{Command: p.Value, Cron: c})
	}
	if !more {
		return fmt.Errorf("%q has no command; want [KEY=VALUE,…] COMMAND", p.Value)
	}
	pairs, err := keyValues(first)
	if err != nil {
		return err
	}
	for _, kv := range pairs {
		if err := c.set(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return a.add(p, Attached{Command: command, Cron: c})
}

func (c *Cron) set(key, value string) error {
	for _, f := range c.fields() {
		if f.name == key {
			return f.set(value)
		}
	}
	switch key {
	case "unique":
		c.Unique = ini.ParseBool(value)
		return nil
	case "harakiri", "timeout":
		return parseTimeout(&c.Timeout, value)
	case "legion":
		return errors.New("legion: a command has no legion whose lord could run it; leave the key out")
	}
	return fmt.Errorf("%s: no such key; want minute, hour, day, month, week, unique or harakiri, then a blank and the command", strconv.Quote(key))
}

func parseTimeout(dst *time.Duration, text string) error {
	if err := setTime(dst, text); err != nil {
		return fmt.Errorf("harakiri: %w", err)
	}
	if *dst == 0 {
		*dst = noTimeout
	}
	return nil
}

func setCronTimeout(a *attachments, p ini.Pair) error { return setTime(&a.timeout, p.Value) }
