package vassal

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
)

// Resources are what all processes of a vassal together may use at most. In
// each, 0 is what the emperor's ini says, and Unlimited is no limit.
type Resources struct {
	CPU    int                `json:"cpu,omitempty"`    // thousandths of a CPU
	Memory int64              `json:"memory,omitempty"` // bytes, with what is swapped out
	PIDs   int                `json:"pids,omitempty"`   // processes and threads
	IO     []IOLimit          `json:"io,omitempty"`     // of several for one device the last
	At     map[string]ini.Pos `json:"at,omitempty"`     // where the options are, for errors
}

// Unlimited is "max" in an ini.
const Unlimited = -1

// The options, which are also the names of limits in errors.
const (
	LimitCPU    = "limit-cpu"
	LimitMemory = "limit-memory"
	LimitPIDs   = "limit-pids"
	LimitIO     = "limit-io"
)

// ResourceNames are all of them.
var ResourceNames = []string{LimitCPU, LimitMemory, LimitPIDs, LimitIO}

// Bounds of what makes sense. The init stage, which is limited already, takes
// part of memory and pids until it is the app.
const (
	minCPU    = 10 // the shortest quota of the kernel, 1 ms in 100 ms
	maxCPU    = 1 << 20
	minMemory = 16 << 20
	maxMemory = 1 << 50
	minPIDs   = 32
	maxPIDs   = 1 << 22 // PID_MAX_LIMIT
	maxIO     = 64
)

// ResourceOptions are the options that fill Resources, for a vassal's ini and,
// as defaults of all vassals, for the emperor's.
func ResourceOptions[T any](of func(*T) *Resources, whose string) []ini.Option[T] {
	option := func(name, meaning string, set func(*Resources, string) error) ini.Option[T] {
		return ini.Option[T]{
			Name: name, Kind: ini.Text, Since: "0.1", Repeats: name == LimitIO, Meaning: meaning + whose,
			Set: func(c *T, p ini.Pair) error {
				r := of(c)
				if err := set(r, p.Value); err != nil {
					return fmt.Errorf("%s = %.100s: %w", name, p.Value, err)
				}
				if r.At == nil {
					r.At = map[string]ini.Pos{}
				}
				r.At[name] = p.Pos
				return nil
			},
		}
	}
	return []ini.Option[T]{
		option(LimitCPU, "CPUs' worth of time for the whole vassal, at most: 0.5, 1.5, or max; also as a share of one CPU, 50%%, with the % written twice as everywhere in an ini", setCPU),
		option(LimitMemory, "memory of the whole vassal with its page cache and what is swapped out, at most: bytes, or a number with K, M or G, or max", setMemory),
		option(LimitPIDs, "processes and threads of the whole vassal, at most, or max", setPIDs),
		option(LimitIO, "DEVICE [rbps=BYTES] [wbps=BYTES] [riops=N] [wiops=N]: what the whole vassal may read and write of a disk in a second, at most", setIO),
	}
}

func setCPU(r *Resources, value string) error {
	want := errors.New("want a number of CPUs such as 0.5 or 1.5, at least 0.01, or a share of one such as 50% (an ini needs the % twice)")
	if value == "max" {
		r.CPU = Unlimited
		return nil
	}
	number, percent := strings.CutSuffix(value, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil {
		return want
	}
	f *= 1000
	if percent {
		f /= 100
	}
	if !(f >= minCPU && f <= maxCPU) { // also not a NaN
		return want
	}
	r.CPU = int(math.Round(f))
	return nil
}

func setMemory(r *Resources, value string) error {
	if value == "max" {
		r.Memory = Unlimited
		return nil
	}
	n, err := parseSize(value)
	if err != nil || n < minMemory || n > maxMemory {
		return fmt.Errorf("want bytes, or a number with K, M or G, such as 64M, at least %s", Size(minMemory))
	}
	r.Memory = n
	return nil
}

func setPIDs(r *Resources, value string) error {
	if value == "max" {
		r.PIDs = Unlimited
		return nil
	}
	n, err := ini.ParseInt(value)
	if err != nil || n < minPIDs || n > maxPIDs {
		return fmt.Errorf("want a number from %d (the start itself needs some) to %d", minPIDs, maxPIDs)
	}
	r.PIDs = n
	return nil
}

// Text is the limit of one of the options as an ini has it; "" without one.
func (r *Resources) Text(option string) string {
	switch {
	case option == LimitCPU && r.CPU > 0:
		return strconv.FormatFloat(float64(r.CPU)/1000, 'f', -1, 64)
	case option == LimitMemory && r.Memory > 0:
		return Size(r.Memory)
	case option == LimitPIDs && r.PIDs > 0:
		return strconv.Itoa(r.PIDs)
	case option == LimitIO && len(r.IO) > 0:
		var all []string
		for _, l := range r.IO {
			all = append(all, l.String())
		}
		return strings.Join(all, ", ")
	}
	return ""
}

// take takes one option over from another.
func (r *Resources) take(option string, from *Resources) {
	switch option {
	case LimitCPU:
		r.CPU = from.CPU
	case LimitMemory:
		r.Memory = from.Memory
	case LimitPIDs:
		r.PIDs = from.PIDs
	case LimitIO:
		r.IO = from.IO
	}
}

// Same says whether two limit the same, wherever they stand.
func (r *Resources) Same(other *Resources) bool {
	return r.CPU == other.CPU && r.Memory == other.Memory && r.PIDs == other.PIDs && slices.Equal(r.IO, other.IO)
}

// check says what no parser can have given.
func (r *Resources) check() error {
	outside := func(n, least, most int64) bool { return n != 0 && n != Unlimited && (n < least || n > most) }
	switch {
	case outside(int64(r.CPU), minCPU, maxCPU):
		return fmt.Errorf("%s: %d thousandths of a CPU: want %d to %d", LimitCPU, r.CPU, minCPU, maxCPU)
	case outside(r.Memory, minMemory, maxMemory):
		return fmt.Errorf("%s: %d bytes: want %d to %d", LimitMemory, r.Memory, minMemory, int64(maxMemory))
	case outside(int64(r.PIDs), minPIDs, maxPIDs):
		return fmt.Errorf("%s: %d: want %d to %d", LimitPIDs, r.PIDs, minPIDs, maxPIDs)
	case len(r.IO) > maxIO:
		return fmt.Errorf("%s: %d devices; at most %d are allowed", LimitIO, len(r.IO), maxIO)
	}
	for i := range r.IO {
		if err := r.IO[i].checkDevice(); err != nil {
			return err
		}
	}
	return nil
}

// Exceeds finds what r asks for beyond most: the first such option, and what it
// says; "" if there is none. Who says nothing asks for nothing.
func (r *Resources) Exceeds(most *Resources) (option, own string) {
	above := func(own, most int64) bool { return most > 0 && (own == Unlimited || own > most) }
	for _, limit := range []struct {
		option    string
		own, most int64
	}{
		{LimitCPU, int64(r.CPU), int64(most.CPU)},
		{LimitMemory, r.Memory, most.Memory},
		{LimitPIDs, int64(r.PIDs), int64(most.PIDs)},
	} {
		if above(limit.own, limit.most) {
			return limit.option, cmp.Or(r.Text(limit.option), "max")
		}
	}
	for i := range r.IO {
		l := &r.IO[i]
		if bound := most.disk(l.Device); bound != nil && !l.within(bound) {
			return LimitIO, l.String()
		}
	}
	return "", ""
}

// disk is the limit of a disk; nil: there is none.
func (r *Resources) disk(device string) *IOLimit {
	i := slices.IndexFunc(r.IO, func(l IOLimit) bool { return l.Device == device })
	if i < 0 {
		return nil
	}
	return &r.IO[i]
}

// Over is r, and what base says where r says nothing.
func (r Resources) Over(base *Resources) Resources {
	r.CPU, r.Memory, r.PIDs = cmp.Or(r.CPU, base.CPU), cmp.Or(r.Memory, base.Memory), cmp.Or(r.PIDs, base.PIDs)
	own := r.IO
	r.IO = slices.Clone(base.IO)
	for _, l := range own {
		if bound := r.disk(l.Device); bound != nil {
			*bound = l.over(bound)
		} else {
			r.IO = append(r.IO, l)
		}
	}
	return r
}

// Within is r with no more of anything than most: where r says nothing, what most
// says.
func (r Resources) Within(most *Resources) Resources {
	less := func(own, most int64) int64 {
		if most > 0 && (own <= 0 || own > most) {
			return most
		}
		return own
	}
	r.CPU, r.Memory, r.PIDs = int(less(int64(r.CPU), int64(most.CPU))), less(r.Memory, most.Memory), int(less(int64(r.PIDs), int64(most.PIDs)))
	own := r.IO
	r.IO = slices.Clone(most.IO)
	for _, l := range own {
		if bound := r.disk(l.Device); bound != nil {
			*bound = l.lower(bound)
		} else {
			r.IO = append(r.IO, l)
		}
	}
	return r
}

// Replace is r with what other says of the options in its place.
func (r Resources) Replace(other *Resources, said func(option string) bool) Resources {
	for _, option := range ResourceNames {
		if said(option) {
			r.take(option, other)
		}
	}
	return r
}
