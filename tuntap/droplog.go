package tuntap

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
)

const (
	logEvery   = int64(10e9) // of the shards' clock, for each peer and reason
	logRate    = 20          // lines a second, all in all
	logPending = 256         // lines that wait for a slow log; more are lost
)

// notes is when a line was last written, by reason, on the shards' clock.
type notes [reasons]atomic.Int64

// note counts a dropped packet, keeps it as an example and, now and then, has a line written about it.
// p is nil for what belongs to no peer.
func (s *shard) note(n *network, p *peer, pk *packet, v verdict) {
	count, noted := &n.drops, &n.noted
	if p != nil {
		count, noted = &p.drops, &p.noted
	}
	count[v.why].add(1)
	if p != nil && v.how != quiet {
		bookOf(&p.book).keep(pk, &v, s.now)
	}
	last := noted[v.why].Load()
	if v.how == quiet || last != 0 && s.now-last < logEvery {
		return
	}
	// A shard that loses a race for the line leaves it to the winner.
	if !s.r.lines.take(s.now, logRate, logRate) || !noted[v.why].CompareAndSwap(last, s.now) {
		return
	}
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
	s.r.say(slog.LevelInfo, "packet dropped", attrs...)
	if v.why == DropSpoofed && p != nil && s.r.events.Spoofed != nil {
		s.r.events.Spoofed(n.name, p.vassal, pk.flow.Src)
	}
}

// gate is a bucket that shards share: as many as size at once, then rate a
// second. The zero value is full.
type gate struct {
	at atomic.Int64 // the shards' clock when all is back that was taken
}

// take takes one. Of two shards that want it at once, one may go without.
func (g *gate) take(now, rate, size int64) bool {
	each := int64(1e9) / rate
	at := g.at.Load()
	next := max(at, now) + each
	return next-now <= size*each && g.at.CompareAndSwap(at, next)
}

// line is a log line on its way from a shard to the writer.
type line struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// say hands a line to the writer; no shard waits for a log.
func (r *Router) say(level slog.Level, text string, attrs ...slog.Attr) {
	select {
	case r.pending <- line{level, text, attrs}:
	default:
	}
}

// writeLog writes the shards' lines until pending is closed.
func (r *Router) writeLog() {
	for l := range r.pending {
		r.log.LogAttrs(context.Background(), l.level, l.text, l.attrs...)
	}
}
