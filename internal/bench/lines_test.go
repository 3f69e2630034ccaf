package bench

import (
	"cmp"
	"slices"
)

// line is one thing that is measured, and what the ratios of us to the others
// have to be. A bound of 0 is none.
type line struct {
	ID    string  `json:"id"`
	Label string  `json:"label"`
	Unit  string  `json:"unit"`
	Lower bool    `json:"lower_is_better,omitempty"`
	Must  float64 `json:"must,omitempty"`       // to veth
	Aim   float64 `json:"aim,omitempty"`        // to veth
	UWSGI float64 `json:"must_uwsgi,omitempty"` // to uWSGI
}

// The names of what is measured. A name that is not here is us with so many
// rules or peers.
const (
	sysVeth   = "veth"
	sysAgain  = "veth again"
	sysUWSGI  = "uwsgi"
	sysUs     = "us"
	sysKernel = "us, through the kernel" // tuntap-router-direct = off
	sysSleeps = "us, never polling"      // router-busy-poll = 0
)

// variant is us with another setting than the default, on some of the lines.
type variant struct {
	system, setting string
	of              func(l line) bool
	adjust          func(l *line) // its bounds, where they are others
}

var variants = []variant{
	{
		system: sysKernel, setting: "tuntap-router-direct = off",
		of: func(l line) bool { return !l.Lower },
		adjust: func(l *line) { // veth's bridge is not what to compare it with
			l.Must, l.Aim, l.UWSGI = 0, 0, 10
		},
	},
	{
		system: sysSleeps, setting: "router-busy-poll = 0",
		of:     func(l line) bool { return l.Lower || l.ID == "udp" || l.ID == "tcp1" },
		adjust: func(*line) {},
	},
}

// pathLines are the lines of one address family; IPv6 has the same bounds.
func pathLines(family int) []line {
	l := []line{
		{ID: "tcp1", Label: "TCP ×1 vassal→vassal", Unit: "Gbit/s", Must: 0.78, Aim: 1, UWSGI: 20},
		{ID: "tcp4", Label: "TCP ×4 vassal→vassal", Unit: "Gbit/s", Must: 0.55, Aim: 0.70, UWSGI: 20},
		{ID: "h2v", Label: "TCP host→vassal", Unit: "Gbit/s", Must: 0.75, Aim: 0.95, UWSGI: 10},
		{ID: "v2h", Label: "TCP vassal→host", Unit: "Gbit/s", Must: 0.75, Aim: 0.95, UWSGI: 10},
		{ID: "v2i", Label: "TCP vassal→internet", Unit: "Gbit/s", Must: 0.75, Aim: 0.95, UWSGI: 10},
		{ID: "i2v", Label: "TCP internet→vassal", Unit: "Gbit/s", Must: 0.75, Aim: 0.95, UWSGI: 10},
		{ID: "udp", Label: "UDP 64 B delivered", Unit: "kpps", Must: 2, Aim: 2.5, UWSGI: 5},
		{ID: "p50", Label: "RTT p50", Unit: "µs", Lower: true, Must: 1, Aim: 0.6, UWSGI: 0.4},
		{ID: "p99", Label: "RTT p99", Unit: "µs", Lower: true, Must: 1.3, Aim: 0.9, UWSGI: 0.4},
		{ID: "cpu", Label: "CPU per Gbit, TCP ×1", Unit: "s", Lower: true, Must: 1.4, Aim: 1.1, UWSGI: 0.06},
	}
	if family == 1 {
		for i := range l {
			l[i].ID += "-6"
			l[i].Label += ", IPv6"
			l[i].UWSGI = 0 // its router carries IPv4 alone
		}
	}
	return l
}

// spread is the ratios of a run's rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// spreadOf sorts its argument.
func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	slices.Sort(v)
	return spread{Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Min: v[0], Max: v[len(v)-1], Rounds: len(v)}
}

// ratios divides round by round; a measurement that failed is 0 and makes none.
func ratios(subject, reference []float64) spread {
	var r []float64
	for i := range min(len(subject), len(reference)) {
		if subject[i] > 0 && reference[i] > 0 {
			r = append(r, subject[i]/reference[i])
		}
	}
	return spreadOf(r)
}

// met compares a median with its bound; nobody can say without either.
func met(s spread, bound float64, lower bool) string {
	switch {
	case bound == 0 || s.Rounds == 0:
		return ""
	case lower && cmp.Compare(s.Median, bound) <= 0, !lower && cmp.Compare(s.Median, bound) >= 0:
		return "met"
	default:
		return "missed"
	}
}
