package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

func psCommand(t *target) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ps", SuggestFor: []string{"ls", "list"}, Short: "List the vassals", Args: cobra.NoArgs,
		Example: "  fiefdom ps\n  fiefdom ps --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			if asJSON {
				return printList(cmd.Context(), cmd.OutOrStdout(), client)
			}
			all, err := client.List(cmd.Context())
			if err != nil {
				return err
			}
			if len(all) == 0 && os.Getuid() != 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "fiefdom: none of the inis is yours; root sees all vassals")
			}
			return table(cmd.OutOrStdout(), all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printList prints the emperor's own words, indented: to understand a thousand
// statuses first would take longer than all the rest.
func printList(ctx context.Context, w io.Writer, client *emperor.Client) error {
	all, err := client.ListJSON(ctx)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, all, "", "  "); err != nil {
		return fmt.Errorf("the emperor's answer: %w", err)
	}
	_, err = text.WriteTo(w)
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints a line a vassal, and below it one for each process beside its
// command. The ports are there when somebody publishes, the last column when
// somebody has an error: without them the usual line fits a terminal of 80 columns.
func table(out io.Writer, all []emperor.Status) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	failed := slices.ContainsFunc(all, func(s emperor.Status) bool {
		return s.Error != "" || slices.ContainsFunc(s.Processes, func(p emperor.ProcessStatus) bool { return p.Error != "" })
	})
	end := func(text string) string {
		if !failed {
			return "\n"
		}
		return "\t" + text + "\n"
	}
	publishes := slices.ContainsFunc(all, func(s emperor.Status) bool { return len(s.Published) > 0 })
	ports := func(text string) string {
		if !publishes {
			return ""
		}
		return "\t" + text
	}
	fmt.Fprint(w, "NAME\tSTATE\tSINCE\tPID\tUID\tADDRESS", ports("PORTS"), "\tRESTARTS\tRX\tTX\tDROPS", end("ERROR"))
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\t%d\t%s\t%s\t%d%s", s.Name, s.State, ago(s.Since), number(s.PID), uid(s.UID),
			addresses(s.Addresses), ports(publishedText(s.Published)), s.Restarts, size(s.RxBytes), size(s.TxBytes), sum(s.Drops), end(trouble(s)))
		for _, p := range s.Processes {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t-%s\t%d\t-\t-\t-%s", p.Name, p.State, ago(p.Since), number(p.PID), uid(p.UID),
				ports("-"), p.Restarts, end(firstLine(plain(p.Error), 60)))
		}
	}
	return w.Flush()
}

// trouble is what ps says of a vassal that has an error. A crash loop is told
// first: an error that is long shall not hide it, nor shall the way to its own ini.
func trouble(s emperor.Status) string {
	text := s.Error
	if rest, own := strings.CutPrefix(text, s.File+":"); own && s.File != "" {
		text = filepath.Base(s.File) + ":" + rest
	}
	text = firstLine(plain(text), 60)
	if s.State == emperor.Backoff && s.Deaths > 1 {
		return fmt.Sprintf("%d deaths, next start in %s: %s", s.Deaths, max(0, time.Until(s.NextStart)).Round(time.Second), text)
	}
	return text
}

func ago(t time.Time) string { return plaintext.Age(time.Since(t)) }

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func uid(n int) string {
	if n < 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func addresses(all []netip.Addr) string {
	if len(all) == 0 {
		return "-"
	}
	var s []string
	for _, a := range all {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

// publishedText is what is published, as far as a column should be wide.
func publishedText(all []emperor.PublishedStatus) string {
	const most = 3
	texts := emperor.PublishedTexts(all)
	switch {
	case len(texts) == 0:
		return "-"
	case len(texts) > most:
		return strings.Join(texts[:most], ",") + fmt.Sprintf(",+%d", len(texts)-most)
	}
	return strings.Join(texts, ",")
}

func size(n uint64) string { return plaintext.Size(float64(n)) }

func sum(drops map[string]uint64) uint64 {
	var n uint64
	for _, d := range drops {
		n += d
	}
	return n
}

func firstLine(s string, most int) string {
	s, _, more := strings.Cut(s, "\n")
	if r := []rune(s); len(r) > most {
		s, more = string(r[:most-1]), true
	}
	if more {
		s += "…"
	}
	return s
}

// byCount lists drops, the most first.
func byCount(drops map[string]uint64) []string {
	reasons := make([]string, 0, len(drops))
	for r := range drops {
		reasons = append(reasons, r)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		if drops[a] != drops[b] {
			return int(min(drops[b], 1<<30)) - int(min(drops[a], 1<<30))
		}
		return strings.Compare(a, b)
	})
	var s []string
	for _, r := range reasons {
		s = append(s, fmt.Sprintf("%d %s", drops[r], r))
	}
	return s
}
