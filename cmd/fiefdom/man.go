//go:build man

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"fiefdom/internal/ini"
)

// forPackagers are commands for those who package the program, in builds with the tag
// man alone: what writes the pages would cost every process of ours memory and time.
func forPackagers() []*cobra.Command { return []*cobra.Command{manCommand()} }

// manCommand makes pages from what the program itself knows.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the manual pages", Args: cobra.ExactArgs(1), Hidden: true,
		Example: "  fiefdom man bin/man",
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // the pages of one version are always the same
			header := &doc.GenManHeader{Section: "1", Source: "fiefdom " + versionText(), Manual: "Fiefdom"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return err
			}
			f, err := os.Create(filepath.Join(args[0], "fiefdom.ini.5"))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := writeIniPage(f, allDocs()); err != nil {
				return err
			}
			return f.Close()
		},
	}
}

// writeIniPage writes fiefdom.ini(5), the options of all inis.
func writeIniPage(w io.Writer, docs []ini.Doc) error {
	var b strings.Builder
	fmt.Fprintf(&b, `.TH "FIEFDOM.INI" "5" "" "%s" "Fiefdom"
.SH NAME
fiefdom.ini \- the files of an emperor and of its vassals
.SH DESCRIPTION
An ini file describes an emperor or one of its vassals, in uWSGI's dialect: options in a section [uwsgi], one a line,
\fIname\fR = \fIvalue\fR. Of an option that stands there several times the last one counts, but for those marked with ...
.PP
.B fiefdom check
tells what is wrong with a file,
.B fiefdom show
what it comes to.
`, manText("fiefdom "+versionText()))
	group := ""
	for _, d := range docs {
		if d.Group != group {
			group = d.Group
			fmt.Fprintf(&b, ".SH %s\n", manText(strings.ToUpper(groupTitles[group])))
		}
		names := manText(strings.Join(append([]string{d.Name}, d.Aliases...), ", "))
		more := ""
		if d.Repeats && group != "ini" {
			more = " ..."
		}
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR (%s)%s\n%s\n", names, manText(string(d.Kind)), more, manText(d.Meaning))
	}
	b.WriteString(".SH FILES\n.TP\n/etc/fiefdom/NAME.ini\nthe emperor that the service fiefdom@NAME runs\n.SH SEE ALSO\n\\fBfiefdom\\fR(1)\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// manText is a text as roff prints it.
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
