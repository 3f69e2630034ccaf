package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fiefdom/tuntap"
)

func explainCommand(t *target) *cobra.Command {
	var asJSON, lastDrops bool
	var from, network string
	c := &cobra.Command{
		Use: "explain NAME out|in PROTO ADDR[:PORT] | --last-drops NAME", Short: "Tell what would become of a packet, and why",
		Long: `Explain asks the router what would become of a packet that begins something, a
TCP SYN, a ping or a datagram, if it came now: from the vassal to ADDR (out), or
from ADDR to the vassal (in). PORT is the destination's. It prints each rule that
is looked at, the line that decides, and what to write to have it otherwise.

With --last-drops it tells of the drops that happened, by reason and rule.`,
		Example: `  fiefdom explain shop out tcp 10.9.0.3:5432
  fiefdom explain shop in tcp 198.51.100.7:80
  fiefdom explain shop out icmp 10.9.0.1
  fiefdom explain shop out udp 10.9.0.3:53 --from 10.9.0.99
  fiefdom explain --last-drops shop`,
		Args: func(cmd *cobra.Command, args []string) error {
			if lastDrops {
				return cobra.ExactArgs(1)(cmd, args)
			}
			return cobra.ExactArgs(4)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if lastDrops {
				return explainDrops(cmd, t, args[0], asJSON)
			}
			q, err := parseQuestion(args[1], args[2], args[3])
			if err == nil && from != "" {
				q.From, err = parseAddr(from)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			q.Network = network
			client, err := t.client()
			if err != nil {
				return err
			}
			var e tuntap.Explanation
			if err := client.Explain(cmd.Context(), args[0], writeQuery(q), &e); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), e)
			}
			return printExplanation(cmd.OutOrStdout(), &e)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&lastDrops, "last-drops", false, "tell of the drops that happened to the vassal's packets")
	c.Flags().StringVar(&from, "from", "", "the packet's source, if it is not the vassal's own address (out)")
	c.Flags().StringVar(&network, "network", "", "the router's device, when the vassal is in several networks")
	return c
}

func printExplanation(out io.Writer, e *tuntap.Explanation) error {
	fmt.Fprintf(out, "%s %s %s, %s -> %s: %s%s\n", e.Vassal, e.Direction, e.Proto, e.Src, withPort(e.Dst, e.Port), strings.ToUpper(e.Verdict), decided(e))
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, s := range e.Steps {
		name := s.Name
		if s.Vassal != "" {
			name += " of " + s.Vassal
		}
		fmt.Fprintf(w, " %s\t%s\t%s\n", plain(name), s.Result, plain(s.Why))
		for _, c := range s.Rules {
			word := "no"
			if c.Hit {
				word = "hit"
			}
			fmt.Fprintf(w, "   %d %s\t%s\t%s\t%s\n", c.Number, word, c.Text, plain(fileLine(c.File, c.Line)), plain(c.Why))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printTrimmed(out, b.String())
	printChanges(out, e)
	if s := e.Seen; s != nil {
		fmt.Fprintf(out, "last seen: %s ago, %d such packets since the device was handed over\n", ago(s.Last), s.Count)
	}
	return nil
}

// decided says who decided, at the end of the first line.
func decided(e *tuntap.Explanation) string {
	text := ""
	switch {
	case e.Rule != nil:
		text = fmt.Sprintf(", by %s %q", fileLine(e.Rule.File, e.Rule.Line), e.Rule.Text)
	case e.Reason != "":
		text = " (" + e.Reason + ")"
	}
	if e.To != "" {
		text += ", to " + e.To
	}
	return plain(text)
}

// printTrimmed prints a table without the blanks that end its lines.
func printTrimmed(out io.Writer, table string) {
	for line := range strings.Lines(table) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
}

func printChanges(out io.Writer, e *tuntap.Explanation) {
	other := "allow"
	if e.Verdict == other {
		other = "deny"
	}
	for i, c := range e.Changes {
		where, lead := "after", "to "+other+" it, write "
		if c.Before {
			where = "before"
		}
		if i > 0 {
			lead = "and "
		}
		if c.Number > 0 {
			fmt.Fprintf(out, "%sit before the unsaved rule %d, by fiefdom firewall add --at %[2]d:\n  %[3]s\n", lead, c.Number, c.Text)
			continue
		}
		fmt.Fprintf(out, "%s%s %s:\n  %s\n", lead, where, plain(fileLine(c.File, c.Line)), c.Text)
	}
	if e.Advice != "" {
		fmt.Fprintln(out, plain(e.Advice))
	}
}

// fileLine is FILE:LINE, as errors have it.
func fileLine(file string, line int) string {
	if file == "" {
		return "-"
	}
	if line == 0 {
		return file // an unsaved rule's
	}
	return fmt.Sprintf("%s:%d", file, line)
}

func withPort(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
