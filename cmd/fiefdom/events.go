package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
)

func eventsCommand(t *target) *cobra.Command {
	var q emperor.EventQuery
	var since string
	var asJSON bool
	c := &cobra.Command{
		Use: "events [NAME]", Short: "Show what happened, to all vassals or to one", Args: cobra.MaximumNArgs(1),
		Long: `Events shows what happened: vassals found, started, died and why, addresses refused,
the router started again. The emperor keeps some 8 MiB of it across restarts. With
--json each line is an object; docs/monitoring.md has the kinds of events.`,
		Example: "  fiefdom events --since 1h\n  fiefdom events -f blog\n  fiefdom events --json --since 2026-01-31T12:00:00Z",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			if q.Since, err = eventsSince(since, time.Now()); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			if len(args) > 0 {
				q.Vassal = args[0]
				if _, err := client.Get(ctx, q.Vassal); err != nil && (!errors.Is(err, emperor.ErrNotFound) || !happenedTo(client, cmd, q.Vassal)) {
					return err
				}
			}
			out := cmd.OutOrStdout()
			err = client.Events(ctx, q, func(ev emperor.Event) error {
				if asJSON {
					return json.NewEncoder(out).Encode(ev)
				}
				return printEvent(out, ev)
			})
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil && q.Follow:
				return errors.New("the emperor has ended")
			}
			return err
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until interrupted; without --since, only with what comes")
	c.Flags().StringVar(&since, "since", "", "only what is younger: 10m, 2h30m, 15:04 or 2006-01-02T15:04:05Z")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, an object a line")
	return c
}

// happenedTo says whether there are events of a vassal, which may be gone by now.
func happenedTo(client *emperor.Client, cmd *cobra.Command, vassal string) bool {
	err := client.Events(cmd.Context(), emperor.EventQuery{Vassal: vassal}, func(emperor.Event) error { return io.EOF })
	return errors.Is(err, io.EOF)
}

// eventsSince reads a point in the past: an age, a time of this day or of
// yesterday, or a whole time.
func eventsSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if at, err := time.ParseInLocation("15:04", text, now.Location()); err == nil {
		y, m, d := now.Date()
		at = time.Date(y, m, d, at.Hour(), at.Minute(), 0, 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%w: --since %q; want an age such as 10m, a time such as 15:04, or one as in RFC 3339", errUsage, text)
}

// printEvent prints an event in a line. What is not the emperor's own word may
// be anybody's.
func printEvent(w io.Writer, ev emperor.Event) error {
	var s strings.Builder
	vassal := ev.Vassal
	if vassal == "" {
		vassal = "-"
	}
	fmt.Fprintf(&s, "%s  %-12s  %-12s  %s", ev.Time.Local().Format(time.DateTime), vassal, ev.Kind, ev.Message)
	for _, key := range slices.Sorted(maps.Keys(ev.Fields)) {
		text := fieldText(ev.Fields[key])
		if text == "" || strings.ContainsAny(text, " \t\n\"=") {
			text = strconv.Quote(text)
		}
		s.WriteString(" " + key + "=" + text)
	}
	_, err := fmt.Fprintln(w, strings.ReplaceAll(plain(s.String()), "\n", " "))
	return err
}

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
