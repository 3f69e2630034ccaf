package vassal

import (
	"fmt"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Limits are what an app may use at most. They are set with the app's own
// rights, so that no ini raises them beyond its user's. 0 is the emperor's own.
type Limits struct {
	Memory    int `json:"memory,omitempty"`    // address space in MB
	Processes int `json:"processes,omitempty"` // of the app's user
	Files     int `json:"files,omitempty"`     // open descriptors
	Nice      int `json:"nice,omitempty"`      // -20 to 19

	OOMScore *int `json:"oom_score,omitempty"` // -1000 to 1000: whom the kernel kills first when memory is short; nil: the emperor's own, if that is no protection
}

// Largest values that make sense; more is a typing error.
const (
	maxMemoryMB = 1 << 30
	maxCount    = 1 << 30 // nr_open is at most about that
	minNice     = -20
	maxNice     = 19
)

// limitOptions are part of Options.
var limitOptions = []ini.Option[Config]{
	limitOption("limit-as", "the app's address space in MB, at most", func(l *Limits) *int { return &l.Memory }, 1, maxMemoryMB),
	limitOption("limit-nproc", "processes of the app's user, at most", func(l *Limits) *int { return &l.Processes }, 1, maxCount),
	limitOption("max-fd", "descriptors that a process of the app has open, at most", func(l *Limits) *int { return &l.Files }, 1, maxCount),
	OOMScore(func(c *Config) **int { return &c.Limits.OOMScore }, func(c *Config, p ini.Pair) { c.Isolation.note(OOMScoreOption, p.Pos) }, ""),
	limitOption("prio", "the app's nice value, -20 to 19; below what the emperor has takes an app that is root", func(l *Limits) *int { return &l.Nice }, minNice, maxNice),
}

func limitOption(name, meaning string, field func(*Limits) *int, least, most int) ini.Option[Config] {
	return ini.Option[Config]{
		Name: name, Kind: ini.Int, Since: "0.1", Meaning: meaning,
		Set: func(c *Config, p ini.Pair) error {
			n, err := ini.ParseInt(p.Value)
			if err != nil || n < least || n > most {
				return fmt.Errorf("%s = %s: want a number from %d to %d", p.Key, p.Value, least, most)
			}
			*field(&c.Limits) = n
			c.Isolation.note(name, p.Pos)
			return nil
		},
	}
}

func (l *Limits) check() error {
	for _, v := range []struct {
		name           string
		n, least, most int
	}{
		{"limit-as", l.Memory, 0, maxMemoryMB},
		{"limit-nproc", l.Processes, 0, maxCount},
		{"max-fd", l.Files, 0, maxCount},
		{"prio", l.Nice, minNice, maxNice},
	} {
		if v.n < v.least || v.n > v.most {
			return fmt.Errorf("%s %d: want at most %d", v.name, v.n, v.most)
		}
	}
	if l.OOMScore != nil && (*l.OOMScore < -maxOOMScore || *l.OOMScore > maxOOMScore) {
		return fmt.Errorf("%s %d: want -%d to %[3]d", OOMScoreOption, *l.OOMScore, maxOOMScore)
	}
	return nil
}

// apply limits the calling thread and what it becomes. Address space comes
// last: nothing but exec may need any after it.
func (l *Limits) apply() error {
	if l.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, l.Nice); err != nil {
			return fmt.Errorf("prio %d: %w", l.Nice, err)
		}
	}
	for _, limit := range []struct {
		name  string
		which int
		n     uint64
	}{
		{"limit-nproc", unix.RLIMIT_NPROC, uint64(l.Processes)},
		{"max-fd", unix.RLIMIT_NOFILE, uint64(l.Files)},
		{"limit-as", unix.RLIMIT_AS, uint64(l.Memory) << 20},
	} {
		if limit.n == 0 {
			continue
		}
		if err := unix.Setrlimit(limit.which, &unix.Rlimit{Cur: limit.n, Max: limit.n}); err != nil {
			return fmt.Errorf("%s: %w", limit.name, err)
		}
	}
	return nil
}
