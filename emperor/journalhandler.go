package emperor

import (
	"context"
	"log/slog"
	"slices"
)

// Handler makes events of all that is logged, and passes it on to next.
func (j *Journal) Handler(next slog.Handler) slog.Handler { return &journalHandler{j: j, next: next} }

// journalHandler is the one place where events come from.
type journalHandler struct {
	j     *Journal
	next  slog.Handler
	attrs []slog.Attr // of the logger
}

// Enabled lets debug lines through, as some of them are events.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelDebug
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	if kind, message := classify(&r); kind != "" {
		ev := Event{Time: r.Time, Kind: kind, Message: boundedText(message)}
		for _, a := range h.attrs {
			ev.take(a)
		}
		r.Attrs(func(a slog.Attr) bool {
			ev.take(a)
			return true
		})
		if kind == "starting" {
			ev.Fields = nil // the state machine's
		}
		h.j.add(ev)
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.j, h.next.WithAttrs(attrs), slices.Concat(h.attrs, attrs)}
}

// WithGroup is for the log only: an event's fields have no groups.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.j, h.next.WithGroup(name), h.attrs}
}
