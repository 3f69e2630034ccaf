package main

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fiefdom/tuntap"
)

// explainDrops tells of the drops that happened.
func explainDrops(cmd *cobra.Command, t *target, name string, asJSON bool) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	all := []tuntap.PeerDrops{}
	if err := client.Drops(cmd.Context(), name, &all); err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	return printDrops(cmd.OutOrStdout(), name, all)
}

func printDrops(out io.Writer, name string, all []tuntap.PeerDrops) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "REASON\tRULE\tCOUNT\tLAST\tLAST PACKET\n")
	kinds := 0
	for _, p := range all {
		for _, d := range p.Drops {
			rule := "-"
			if d.Rule != nil {
				rule = fmt.Sprintf("%s %q", fileLine(d.Rule.File, d.Rule.Line), d.Rule.Text)
			}
			packet := "-"
			if d.Dst.IsValid() {
				packet = fmt.Sprintf("%s %s %s -> %s", d.Way, d.Proto, d.Src, withPort(d.Dst, d.Port))
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s ago\t%s\n", d.Reason, plain(rule), d.Count, ago(d.Last), packet)
			kinds++
		}
		for reason, n := range p.Others {
			fmt.Fprintf(w, "%s\t-\t%d\t-\t-\n", reason, n)
			kinds++
		}
	}
	if kinds == 0 {
		fmt.Fprintf(out, "no packet of %s, or for it, was dropped\n", plain(name))
		return nil
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printTrimmed(out, b.String())
	return nil
}
