package emperor

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Event is something that happened, as "fiefdom events --json" and events.jsonl
// show it, one in a line. The schema is stable: fields are only added.
type Event struct {
	ID      uint64         `json:"id"` // counts up by one through the life of the instance; a gap is what was lost
	Time    time.Time      `json:"time"`
	Kind    string         `json:"kind"`             // one of Kinds
	Vassal  string         `json:"vassal,omitempty"` // empty: it is the emperor's, a network's or a foreign peer's
	Owner   uint32         `json:"owner"`            // the uid of the vassal's ini then: he and root see the event
	Message string         `json:"message"`          // as the log has it
	Fields  map[string]any `json:"fields,omitempty"` // what the log adds: texts, numbers, lists of texts; durations as 1.5s
}

// Bounds of an event in bytes, as JSON, and of one of its texts.
const (
	eventLine = 16 << 10
	eventText = 2 << 10
)

// encode is the event as a line of JSON. One that is too long loses its fields.
func (ev *Event) encode() []byte {
	line, err := json.Marshal(ev)
	if err != nil || len(line) >= eventLine {
		ev.Fields = nil
		line, _ = json.Marshal(ev) // texts and numbers always can
	}
	return append(line, '\n')
}

// Text is the event's message and " key=value" of each of its fields, by key. It
// may be anybody's word.
func (ev *Event) Text() string {
	var s strings.Builder
	s.WriteString(ev.Message)
	for _, key := range slices.Sorted(maps.Keys(ev.Fields)) {
		text := fieldText(ev.Fields[key])
		if text == "" || strings.ContainsAny(text, " \t\n\"=") {
			text = strconv.Quote(text)
		}
		s.WriteString(" " + key + "=" + text)
	}
	return s.String()
}

// fieldText is a field as it came from JSON.
func fieldText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, fieldText(x))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v)
}

// take adds a log line's value to the event.
func (ev *Event) take(a slog.Attr) {
	if a.Key == "vassal" {
		ev.Vassal = a.Value.String()
		return
	}
	if ev.Fields == nil {
		ev.Fields = map[string]any{}
	}
	ev.Fields[a.Key] = eventValue(a.Value)
}

// eventValue is what JSON gets of a log line's value.
func eventValue(v slog.Value) any {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindBool:
		return v.Any()
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		switch x := v.Any().(type) {
		case []netip.Addr:
			all := make([]string, 0, len(x))
			for _, a := range x {
				all = append(all, a.String())
			}
			return all
		case error:
			return boundedText(x.Error())
		case encoding.TextMarshaler:
			if text, err := x.MarshalText(); err == nil {
				return boundedText(string(text))
			}
		}
		return boundedText(fmt.Sprint(v.Any()))
	}
	return boundedText(v.String())
}

// boundedText is a text as UTF-8 of bounded length.
func boundedText(s string) string {
	if len(s) > eventText {
		s = s[:eventText-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
