package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// allDocs are the options of every table, in the order of the reference page.
func allDocs() []ini.Doc {
	docs := emperorDocs()
	docs = append(docs, ini.Docs("vassal", vassal.Options)...)
	docs = append(docs, ini.Docs("attached", vassal.AttachOptions)...)
	docs = append(docs, ini.Docs("policy", emperor.PolicyOptions)...)
	return append(docs, ini.Dialect()...)
}

func optionsCommand() *cobra.Command {
	var asJSON, asMarkdown bool
	c := &cobra.Command{
		Use: "options [WORD...]", Short: "List the options of the inis",
		Long:    "Options prints every option with its meaning; words choose those that contain one of them.",
		Example: "  fiefdom options\n  fiefdom options tuntap",
		RunE: func(cmd *cobra.Command, words []string) error {
			docs := chosen(allDocs(), words)
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), docs)
			case asMarkdown:
				return writeMarkdown(cmd.OutOrStdout(), docs)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			for _, d := range docs {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Group, d.Name, d.Kind, d.Meaning)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&asMarkdown, "markdown", false, "print the reference page")
	return c
}

func chosen(docs []ini.Doc, words []string) []ini.Doc {
	if len(words) == 0 {
		return docs
	}
	fit := []ini.Doc{} // not null in JSON
	for _, d := range docs {
		for _, w := range words {
			if strings.Contains(d.Name, w) {
				fit = append(fit, d)
				break
			}
		}
	}
	return fit
}

// groupTitles are the headings of the tables.
var groupTitles = map[string]string{
	"emperor": "The emperor's file", "network": "Networks, in the emperor's file",
	"hooks": "Hooks, in the emperor's file and in vassals'", "emperor-hooks": "Hooks, in the emperor's file alone",
	"vassal": "A vassal's file", "attached": "More processes of a vassal, in its file",
	"policy": "What owners may ask for, in the file of `tyrant-policy`", "ini": "The dialect, everywhere",
}

// writeMarkdown writes docs/options.md; a test keeps the two equal.
func writeMarkdown(w io.Writer, docs []ini.Doc) error {
	var b strings.Builder
	b.WriteString("# Options\n\nMade by `fiefdom options --markdown`. An option marked … may be given several times; of the others the last one counts.\n")
	group := ""
	for _, d := range docs {
		if d.Group != group {
			group = d.Group
			fmt.Fprintf(&b, "\n## %s\n\n| option | kind | meaning |\n|---|---|---|\n", groupTitles[group])
		}
		name := "`" + strings.Join(append([]string{d.Name}, d.Aliases...), "`, `") + "`"
		if d.Repeats && group != "ini" {
			name += " …"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, d.Kind, strings.ReplaceAll(d.Meaning, "|", "\\|"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
