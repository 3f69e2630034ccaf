package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The plot's measures, in pixels.
const (
	plotLabels = 250 // room for the names of lines
	plotPanel  = 420 // width of a panel
	plotGap    = 40
	plotRow    = 24
	plotTop    = 70
)

// scaleOf places ratios on a logarithmic axis.
type scaleOf struct{ left, lo, hi float64 }

func (s scaleOf) x(v float64) float64 {
	at := (math.Log(v) - math.Log(s.lo)) / (math.Log(s.hi) - math.Log(s.lo))
	return s.left + plotPanel*min(1, max(0, at))
}

// bar is one row of a panel.
type bar struct {
	spread
	bounds []float64
	said   string
}

// plot draws the ratios: to veth at the left, to uWSGI at the right. A dot is a
// median, the line through it goes from the least to the most, and the strokes
// are "must" and "aim".
func (r *report) plot() string {
	var b strings.Builder
	rows := len(r.Lines)
	width, height := plotLabels+2*plotPanel+plotGap+80, plotTop+rows*plotRow+30
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="10" y="20" font-size="14">us ÷ veth+bridge, and us ÷ uWSGI; strokes: must and aim; grey: veth ÷ veth</text>
<text x="10" y="38" fill="#555">%s; %s; %d rounds</text>
`, width, height, html.EscapeString(r.Machine), r.Date.Format("2006-01-02"), r.Rounds)
	veth := scaleOf{plotLabels, 0.1, 10}
	uwsgi := scaleOf{plotLabels + plotPanel + plotGap, 0.01, 100}
	axis(&b, veth, rows, "to veth+bridge", 0.1, 0.2, 0.5, 1, 2, 5, 10)
	axis(&b, uwsgi, rows, "to uWSGI", 0.01, 0.1, 1, 10, 100)
	for i, v := range r.Lines {
		y := float64(plotTop + i*plotRow + plotRow/2)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", plotLabels-10, y+4, html.EscapeString(v.Label))
		if v.Noise.Rounds > 0 {
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ccc" stroke-width="9"/>`+"\n", veth.x(v.Noise.Min), veth.x(v.Noise.Max)+1, y, y)
		}
		draw(&b, veth, y, bar{v.ToVeth, []float64{v.Must, v.Aim}, v.Met})
		draw(&b, uwsgi, y, bar{v.ToUWSGI, []float64{v.UWSGI}, v.MetU})
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func axis(b *strings.Builder, s scaleOf, rows int, title string, ticks ...float64) {
	bottom := plotTop + rows*plotRow
	fmt.Fprintf(b, `<text x="%.0f" y="%d" font-weight="bold">%s</text>`+"\n", s.left, plotTop-14, title)
	for _, v := range ticks {
		stroke := "#e5e5e5"
		if v == 1 {
			stroke = "#999"
		}
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>`+"\n",
			s.x(v), s.x(v), plotTop-5, bottom, stroke, s.x(v), bottom+16, v)
	}
}

func draw(b *strings.Builder, s scaleOf, y float64, r bar) {
	if r.Rounds == 0 {
		return
	}
	colour := map[string]string{"met": "#1a7f37", "missed": "#cf222e", "": "#0969da"}[r.said]
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="2"/><circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%v</title></circle>`+"\n",
		s.x(r.Min), s.x(r.Max), y, y, colour, s.x(r.Median), y, colour, r.spread)
	for _, v := range r.bounds {
		if v > 0 {
			fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="black"/>`+"\n", s.x(v), s.x(v), y-8, y+8)
		}
	}
}
