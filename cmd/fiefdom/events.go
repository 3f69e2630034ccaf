package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

func eventsCommand(t *target) *cobra.Command {
	var q emperor.EventQuery
	var since string
	var asJSON bool
	c := &cobra.Command{
		Use: "events [NAME]", Short: "Show what happened, to all vassals or to one", Args: cobra.MaximumNArgs(1),
		Long: `Events shows what happened: vassals found, started, died and why, addresses refused,
the router started again. The emperor keeps some 8 MiB of it across restarts, after
which -f goes on. With --json each line is an object; docs/monitoring.md has the
kinds of events.`,
		Example: "  fiefdom events --since 1h\n  fiefdom events -f blog\n  fiefdom events --json --since 2026-01-31T12:00:00Z",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
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
			print := func(ev emperor.Event) error {
				if asJSON {
					return json.NewEncoder(out).Encode(ev)
				}
				return printEvent(out, ev)
			}
			if q.Follow {
				err = followEvents(ctx, &following{client, cmd.ErrOrStderr(), successorPatience}, q, print)
			} else {
				err = client.Events(ctx, q, print)
			}
			if ctx.Err() != nil {
				return nil
			}
			return hungUp(err)
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until interrupted; without --since, only with what comes")
	c.Flags().StringVar(&since, "since", "", "only what is younger: "+sinceForms)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, an object a line")
	return c
}

// followEvents prints events as they come. It asks the next emperor for what came
// since the last one: by the time, as one that was killed takes ids along which
// the next gives again.
func followEvents(ctx context.Context, f *following, q emperor.EventQuery, print func(emperor.Event) error) error {
	last := time.Now()
	printed := map[string]bool{} // those of that very moment
	return f.run(ctx, "", func() error {
		defer func() { q.Since = last }()
		return f.client.Events(ctx, q, func(ev emperor.Event) error {
			key := fmt.Sprint(ev.Kind, " ", ev.Vassal, " ", ev.Message, " ", ev.Fields)
			switch {
			case ev.ID == 0 || ev.Time.Before(last): // told by the way, or older than the command
			case ev.Time.After(last):
				last, printed = ev.Time, map[string]bool{key: true}
			case printed[key]:
				return nil
			default:
				printed[key] = true
			}
			return print(ev)
		})
	})
}

// happenedTo says whether there are events of a vassal, which may be gone by now.
func happenedTo(client *emperor.Client, cmd *cobra.Command, vassal string) bool {
	err := client.Events(cmd.Context(), emperor.EventQuery{Vassal: vassal}, func(emperor.Event) error { return io.EOF })
	return errors.Is(err, io.EOF)
}

// printEvent prints an event in a line. What is not the emperor's own word may
// be anybody's.
func printEvent(w io.Writer, ev emperor.Event) error {
	vassal := cmp.Or(ev.Vassal, "-")
	line := fmt.Sprintf("%s  %-12s  %-12s  %s", ev.Time.Local().Format(time.DateTime), vassal, ev.Kind, ev.Text())
	_, err := fmt.Fprintln(w, plaintext.Line(line))
	return err
}
