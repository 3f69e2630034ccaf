package tuntap

import (
	"context"
	"fmt"
	"log/slog"
)

const (
	logEvery   = int64(10e9) // of the loop's clock, for each peer and reason
	logRate    = 20          // lines a second, all in all
	logPending = 256         // lines that wait for a slow log; more are lost
)

// note counts a dropped packet and, now and then, has a line written about it.
// p is nil for what belongs to no peer.
func (n *network) note(p *peer, pk *packet, v verdict) {
	count, last := &n.drops, &n.noted
	if p != nil {
		count, last = &p.drops, &p.noted
	}
	count[v.why].add(1)
	now := n.r.now
	if v.quiet || last[v.why] != 0 && now-last[v.why] < logEvery || !n.r.lines.take(now, logRate, logRate) {
		return
	}
	last[v.why] = now
	attrs := []slog.Attr{slog.String("network", n.name), slog.String("reason", v.why.String())}
	if p != nil {
		attrs = append(attrs, slog.Uint64("peer", p.id), slog.String("vassal", p.vassal))
	}
	if pk.flow.Src.IsValid() {
		attrs = append(attrs, slog.String("src", pk.flow.Src.String()), slog.String("dst", pk.flow.Dst.String()))
	}
	if v.rule != nil {
		attrs = append(attrs, slog.String("rule", fmt.Sprintf("%s:%d", v.rule.File, v.rule.Line)))
	}
	attrs = append(attrs, slog.Uint64("drops", count[v.why].load()))
	n.r.say(slog.LevelInfo, "packet dropped", attrs...)
}

// line is a log line on its way from the loop to the writer.
type line struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// say hands a line to the writer; the loop never waits for a log.
func (r *Router) say(level slog.Level, text string, attrs ...slog.Attr) {
	select {
	case r.pending <- line{level, text, attrs}:
	default:
	}
}

// writeLog writes the loop's lines until pending is closed.
func (r *Router) writeLog() {
	for l := range r.pending {
		r.log.LogAttrs(context.Background(), l.level, l.text, l.attrs...)
	}
}
