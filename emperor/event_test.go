package emperor

import "testing"

func TestEventText(t *testing.T) {
	ev := Event{Message: "vassal is down", Fields: map[string]any{
		"next": "1.5s", "err": "two words", "events": 12.0, "addrs": []any{"a", "b"}, "none": "",
	}}
	if got, want := ev.Text(), `vassal is down addrs=a,b err="two words" events=12 next=1.5s none=""`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
