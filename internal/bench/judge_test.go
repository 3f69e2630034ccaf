package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestRatios(t *testing.T) {
	for _, test := range []struct {
		name               string
		subject, reference []float64
		want               spread
	}{
		{"nothing", nil, []float64{1}, spread{}},
		{"odd", []float64{2, 6, 3}, []float64{1, 2, 1}, spread{3, 2, 3, 3}},
		{"even", []float64{1, 2, 3, 4}, []float64{1, 1, 1, 1}, spread{2.5, 1, 4, 4}},
		{"round by round", []float64{10, 1}, []float64{10, 1}, spread{1, 1, 1, 2}},
		{"a failure makes no ratio", []float64{0, 4, 4}, []float64{2, 0, 2}, spread{2, 2, 2, 1}},
	} {
		if got := ratios(test.subject, test.reference); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestMet(t *testing.T) {
	one := spread{Median: 1, Min: 0.5, Max: 2, Rounds: 3}
	for _, test := range []struct {
		spread
		bound float64
		lower bool
		want  string
	}{
		{one, 0.9, false, "met"},
		{one, 1, false, "met"},
		{one, 1.1, false, "missed"},
		{one, 1.1, true, "met"},
		{one, 0.9, true, "missed"},
		{one, 0, false, ""},
		{spread{}, 1, false, ""},
	} {
		if got := met(test.spread, test.bound, test.lower); got != test.want {
			t.Errorf("%v, bound %v, lower %t: %q, want %q", test.spread, test.bound, test.lower, got, test.want)
		}
	}
}

// A report with holes in it is printed, and its plot is XML.
func TestReportOfHalfARun(t *testing.T) {
	r := newReport(plan{rounds: 2, rules: []int{10}})
	r.Values = map[string]map[string][]float64{
		"tcp1":      {sysVeth: {10, 20}, sysUs: {9, 0}, sysAgain: {11, 20}},
		"p50":       {sysVeth: {0, 0}, sysUs: {50, 40}, sysUWSGI: {200, 200}},
		"udp-6":     {sysUs: {100, 100}},
		"scale-udp": {sysUs: {100, 100}, "10 rules": {100, 90}, sysVeth: {50, 50}, sysAgain: {50, 40}},
		"memory":    {"10 peers": {2}},
	}
	var b strings.Builder
	r.print(&b)
	for _, want := range []string{"0.9 (0.9–0.9)", "0.78 met", "1 missed", "0.225 (0.2–0.25)", "0.4 met", "0.95 (0.9–1)", "0.8 met", "2 KB; must 8 KB: met"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
	for d := xml.NewDecoder(strings.NewReader(r.plot())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
