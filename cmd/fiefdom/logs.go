package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
)

func logsCommand(t *target) *cobra.Command {
	var q emperor.LogQuery
	var since string
	var asJSON, times bool
	c := &cobra.Command{
		Use: "logs NAME", Short: "Print what a vassal wrote last", Args: cobra.ExactArgs(1),
		Long: `Logs prints what the emperor keeps of a vassal's output in memory: the last 256 KB,
also of what came before an upgrade, or before an emperor that was killed. If
-n or --since ask for more, and the vassal has a logto, that comes from the file and its
backups, compressed or not. Lines of files have no times: --since begins with the first
line of the file that was written then. Control bytes are shown as \xNN. With -f it goes
on after an upgrade or a restart of the emperor.`,
		Example: "  fiefdom logs blog\n  fiefdom logs -f -n 20 blog\n  fiefdom logs --since 10m blog\n  fiefdom logs --since 14:30 --json blog",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Last < 0 {
				return fmt.Errorf("%w: -n %d; want a number of lines, or 0 for all", errUsage, q.Last)
			}
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			printed := 0
			printLine := logPrinter(cmd.OutOrStdout(), asJSON, times)
			count := func(l emperor.LogLine) error { printed++; return printLine(l) }
			if q.Follow {
				err = followLogs(ctx, &following{client, cmd.ErrOrStderr(), successorPatience}, args[0], q, count)
			} else {
				err = client.LogLines(ctx, args[0], q, count)
			}
			if err == nil && printed == 0 && since == "" && !q.Follow && !asJSON {
				fmt.Fprintf(cmd.ErrOrStderr(), "fiefdom: nothing of %s has come yet; a program may hold back what it writes where it sees no terminal (python does, without env = PYTHONUNBUFFERED=1)\n", args[0])
			}
			if ctx.Err() != nil {
				return nil
			}
			return hungUp(err)
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on until interrupted")
	c.Flags().IntVarP(&q.Last, "lines", "n", 0, "print this many of the last lines at most")
	c.Flags().StringVar(&since, "since", "", "print what came since then: "+sinceForms)
	c.Flags().BoolVarP(&times, "time", "t", false, "print when each line came")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each line")
	return c
}

// followLogs prints a vassal's output as it comes, from the next emperor what comes
// after the last line.
func followLogs(ctx context.Context, f *following, vassal string, q emperor.LogQuery, print func(emperor.LogLine) error) error {
	return f.run(ctx, vassal, func() error {
		defer func() { q.Last = 0 }() // there was none, or the next one is after the last
		return f.client.LogLines(ctx, vassal, q, func(l emperor.LogLine) error {
			if l.Next != "" {
				q.Next, q.Since, l.Next = l.Next, time.Time{}, ""
			}
			return print(l)
		})
	})
}

// logPrinter prints lines one by one.
func logPrinter(w io.Writer, asJSON, times bool) func(emperor.LogLine) error {
	return func(l emperor.LogLine) error {
		switch {
		case asJSON:
			return json.NewEncoder(w).Encode(l)
		case times:
			const layout = "2006-01-02 15:04:05.000"
			at := "-" // a file has no times
			if !l.Time.IsZero() {
				at = l.Time.Format(layout)
			}
			_, err := fmt.Fprintf(w, "%-*s %s\n", len(layout), at, plain(l.Text))
			return err
		}
		_, err := fmt.Fprintln(w, plain(l.Text))
		return err
	}
}

// lastLines are the last lines of a vassal's output.
func lastLines(ctx context.Context, c *emperor.Client, name string, most int) (string, error) {
	var b strings.Builder
	err := c.LogLines(ctx, name, emperor.LogQuery{Last: most}, logPrinter(&b, false, false))
	return b.String(), err
}
