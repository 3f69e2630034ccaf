package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
)

func statusCommand(t *target) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status NAME", Short: "Show one vassal, with its last lines", Args: cobra.ExactArgs(1),
		Example: "  fiefdom status blog",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			s, err := client.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			const last = 10
			logs, err := lastLines(cmd.Context(), client, args[0], last)
			if err != nil {
				return err
			}
			printStatus(cmd.OutOrStdout(), s, logs)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printStatus(w io.Writer, s emperor.Status, logs string) {
	line := func(name, value string) {
		if value != "" {
			// A line of somebody else's is not to pass for one of ours.
			fmt.Fprintf(w, "%10s: %s\n", name, strings.ReplaceAll(plain(value), "\n", "\n            "))
		}
	}
	line("vassal", s.Name)
	line("file", s.File)
	line("state", fmt.Sprintf("%s since %s (%s)", s.State, s.Since.Format(time.DateTime), ago(s.Since)))
	if s.State == emperor.Backoff {
		line("next start", fmt.Sprintf("in %s, after %d deaths in a row; fiefdom start %s does not wait", max(0, time.Until(s.NextStart)).Round(time.Second), s.Deaths, s.Name))
	}
	line("error", s.Error)
	if s.LastEnd != "" && s.Error == "" {
		line("last end", fmt.Sprintf("%s ago: %s", ago(s.LastEndAt), s.LastEnd))
	}
	line("says", s.Says)
	line("command", strings.Join(s.Command, " "))
	line("socket", s.Socket)
	line("pid", number(s.PID))
	line("uid", uid(s.UID))
	line("address", addresses(s.Addresses))
	line("published", strings.Join(emperor.PublishedTexts(s.Published), ", "))
	line("restarts", fmt.Sprint(s.Restarts))
	line("traffic", fmt.Sprintf("%s received, %s sent", size(s.RxBytes), size(s.TxBytes)))
	usageLines(line, s)
	line("drops", strings.Join(byCount(s.Drops), ", "))
	if s.Confinement != nil {
		line("confined", s.Confinement.String())
		for _, lack := range s.Confinement.Lacks {
			line("lacking", lack)
		}
	}
	line("log", outputLine(s.Output))
	for _, p := range s.Processes {
		line(p.Kind, processLine(p))
	}
	for _, p := range s.Policy {
		line("policy", fmt.Sprintf("%s = %s (%s:%d, [%s])", p.Key, p.Value, p.File, p.Line, p.Section))
	}
	for _, warning := range s.Warnings {
		line("warning", warning)
	}
	if logs != "" {
		fmt.Fprintf(w, "\n%s", logs)
	}
}

// outputLine says where a vassal's output goes, and what of it was lost.
func outputLine(o *emperor.OutputStatus) string {
	if o == nil {
		return ""
	}
	var parts []string
	if o.File != "" {
		parts = append(parts, o.File)
	}
	if o.Syslog {
		parts = append(parts, "syslog")
	}
	if o.Lost.Bytes > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes with %d ends of lines lost (%s)", o.Lost.Bytes, o.Lost.Lines, o.Reason))
	}
	return strings.Join(parts, ", ")
}

func processLine(p emperor.ProcessStatus) string {
	text := fmt.Sprintf("%s, %s since %s", p.Name, p.State, ago(p.Since))
	if p.PID != 0 {
		text += fmt.Sprintf(", pid %d, uid %s", p.PID, uid(p.UID))
	}
	if p.Kind == "cron" {
		text += fmt.Sprintf(", %d runs", p.Runs)
	} else {
		text += fmt.Sprintf(", %d restarts", p.Restarts)
	}
	if p.Error != "" {
		text += " (" + p.Error + ")"
	}
	return text + ": " + p.Command
}

// wordCommands tell a vassal what to do.
func wordCommands(t *target) []*cobra.Command {
	words := []struct{ word, short string }{
		{"start", "Start a vassal that is down"},
		{"stop", "Stop a vassal until it is started or its ini changes"},
		{"restart", "Stop a vassal and start it again"},
		{"reload", "Read a vassal's ini again and start it with that; a bad ini changes nothing"},
	}
	var all []*cobra.Command
	for _, w := range words {
		all = append(all, &cobra.Command{
			Use: w.word + " NAME...", Short: w.short, Args: cobra.MinimumNArgs(1), Example: "  fiefdom " + w.word + " blog",
			RunE: func(cmd *cobra.Command, names []string) error {
				client, err := t.client()
				if err != nil {
					return err
				}
				for _, name := range names {
					if err := tell(cmd.Context(), cmd.OutOrStdout(), client, name, w.word); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	return all
}

func tell(ctx context.Context, out io.Writer, client *emperor.Client, name, word string) error {
	s, err := client.Do(ctx, name, word)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is %s\n", s.Name, s.State)
	if s.Error != "" && word != "stop" {
		return fmt.Errorf("%s: %s", s.Name, plain(s.Error))
	}
	return nil
}
