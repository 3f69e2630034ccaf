package web

import (
	"html/template"
	"strconv"
	"strings"
)

// A plot is an SVG of numbers alone: nothing of anybody else's gets into it.

// line is one of a plot's: its values, from the oldest to the present one.
type line struct {
	class  string // of the style sheet
	values []float64
	filled bool
}

// plot draws lines over the last hour on a canvas of so many units. What is not
// known yet, at the left, stays empty.
func plot(width, height int, label string, lines ...line) template.HTML {
	top := peak(lines)
	var b strings.Builder
	b.WriteString(`<svg class="plot" role="img" preserveAspectRatio="none" viewBox="0 0 `)
	b.WriteString(strconv.Itoa(width) + " " + strconv.Itoa(height) + `" aria-label="`)
	b.WriteString(template.HTMLEscapeString(label) + `">`)
	for _, l := range lines {
		b.WriteString(`<path class="` + l.class + `" d="`)
		b.WriteString(path(l, width, height, top))
		b.WriteString(`"/>`)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // constants, numbers and an escaped label
}

// peak is the highest value, which is what reaches the top.
func peak(lines []line) float64 {
	top := 0.0
	for _, l := range lines {
		for _, v := range l.values {
			top = max(top, v)
		}
	}
	return top
}

// path goes through a line's values, one a step of the width; the last is at the
// right. Between equal values it goes straight. An area of nothing is not drawn.
func path(l line, width, height int, top float64) string {
	if len(l.values) == 0 || l.filled && top <= 0 {
		return ""
	}
	step := float64(width) / float64(slots(width))
	x := func(i int) string { return number(float64(width) - float64(len(l.values)-1-i)*step) }
	y := func(v float64) string {
		if top <= 0 {
			return number(float64(height) - 0.5)
		}
		return number(float64(height) - 0.5 - v/top*float64(height-1))
	}
	b := make([]byte, 0, 8*len(l.values))
	if l.filled {
		b = append(b, "M"+x(0)+" "+strconv.Itoa(height)+"L"+x(0)+" "+y(l.values[0])...)
	} else {
		b = append(b, "M"+x(0)+" "+y(l.values[0])...)
	}
	for i := 1; i < len(l.values); i++ {
		if i+1 < len(l.values) && l.values[i] == l.values[i-1] && l.values[i] == l.values[i+1] {
			continue
		}
		b = append(b, "L"+x(i)+" "+y(l.values[i])...)
	}
	if l.filled {
		b = append(b, "V"+strconv.Itoa(height)+"Z"...)
	}
	return string(b)
}

// slots is how many values a plot of a width has: a small one has one for six points.
func slots(width int) int {
	if width < length {
		return length / squeeze
	}
	return length
}

// squeeze is how many points are one value of a small plot.
const squeeze = 6

// squeezed are the highest of each so many points: a short peak shall be seen.
// They are cut from the present on, so that a plot's newest value is whole.
func squeezed(points []point, pick func(point) float32) []float64 {
	small := make([]float64, 0, length/squeeze+1)
	for end := len(points) % squeeze; end <= len(points); end += squeeze {
		top := float32(0)
		for _, p := range points[max(0, end-squeeze):end] {
			top = max(top, pick(p))
		}
		if end > 0 {
			small = append(small, float64(top))
		}
	}
	return small
}

func highest(values []float64) float64 {
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	return top
}

// number is a number with one digit behind the point, if that is not 0.
func number(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// of picks one value of points.
func of(points []point, pick func(point) float32) []float64 {
	values := make([]float64, len(points))
	for i, p := range points {
		values[i] = float64(pick(p))
	}
	return values
}

func pickIn(p point) float32     { return p.in }
func pickOut(p point) float32    { return p.out }
func pickCPU(p point) float32    { return p.cpu }
func pickMemory(p point) float32 { return p.memory }
func pickDrops(p point) float32  { return p.drops }
