package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/exposure"
)

func securityCommand(t *target) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "security [NAME|FILE.ini]", Short: "Tell what an app could do to the machine, and what would lower that",
		Long: `Security looks at what is true of a vassal that runs: its rights, mounts and
namespaces as the kernel has them, the rules that hold for its device, its limits.
It prints a row for each, with what it weighs, and how to turn those that are not
well: a line for the vassal's ini, unless it says otherwise. Together they make a
score, from 0.0 (safe) to 10.0 (exposed). Of a vassal that does not run it judges
what its ini asks for; so it does of FILE.ini, a vassal of the emperor whose ini
--config names. Without a name it prints a line for each vassal.`,
		Example: "  fiefdom security\n  fiefdom security blog\n  fiefdom security --json blog\n  fiefdom security --config /etc/fiefdom/emperor.ini new/blog.ini",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := t.facts(cmd, args)
			if err != nil {
				return err
			}
			reports := make([]exposure.Report, 0, len(all))
			for i := range all {
				addOwnSight(&all[i])
				reports = append(reports, exposure.Judge(&all[i]))
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON && len(args) > 0:
				return printJSON(out, reports[0])
			case asJSON:
				return printJSON(out, reports)
			case len(args) > 0:
				return printReport(out, &reports[0])
			}
			return printReports(out, reports)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// facts are those of one vassal, or of all.
func (t *target) facts(cmd *cobra.Command, args []string) ([]exposure.Facts, error) {
	if len(args) > 0 && (filepath.Ext(args[0]) == ".ini" || strings.Contains(args[0], "/")) {
		return t.factsOfFile(args[0])
	}
	client, err := t.client()
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return client.Security(cmd.Context())
	}
	f, err := client.SecurityOf(cmd.Context(), args[0])
	return []exposure.Facts{f}, err
}

func (t *target) factsOfFile(path string) ([]exposure.Facts, error) {
	if t.config == "" {
		return nil, fmt.Errorf("%w: what %s comes to depends on its emperor; name that one's ini by --config", errUsage, path)
	}
	if err := mustExist(path); err != nil {
		return nil, err
	}
	l, err := emperorOf(t.config)
	if err != nil {
		return nil, err
	}
	f, errs, err := emperor.SecurityAmong(l.config, l.vassalNetworks(), path)
	if err == nil && errs.Failed() {
		err = printErrors(errs)
	}
	return []exposure.Facts{f}, err
}

// addOwnSight adds what the asker sees of the files that a vassal is made of. He,
// and not the emperor, waits for file systems that do not answer.
func addOwnSight(f *exposure.Facts) {
	if st, err := os.Stat(f.File); err == nil {
		const byOthers = 0o004
		f.Ini.Readable = st.Mode()&byOthers != 0
	}
	for _, c := range f.Files.Code {
		if mayChange(f.Rights.UID, c.Path) {
			f.Files.Changes = append(f.Files.Changes, c.Path)
		}
	}
}

// mayChange says whether a user may write a file, or put another in its place.
func mayChange(uid int, path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false // it is not there, or not to be seen
	}
	for _, path := range []string{real, filepath.Dir(real)} {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		const byOthers = 0o002
		if owner, _ := ownerOf(path); int(owner.Uid) == uid || uid == 0 || st.Mode()&byOthers != 0 && st.Mode()&os.ModeSticky == 0 {
			return true
		}
	}
	return false
}

// onLine is what others have named, of which no line can pass for one of ours.
func onLine(text string) string { return strings.ReplaceAll(plain(text), "\n", " ") }

// printReport prints a line for each row: those that are well, then those that are
// not with what would turn them, the heaviest first.
func printReport(out io.Writer, r *exposure.Report) error {
	for _, row := range r.Rows {
		if row.OK {
			fmt.Fprintf(out, "✓ %.1f  %s\n", row.Weight, onLine(row.Text))
		}
	}
	for _, row := range r.Worst() {
		fmt.Fprintf(out, "✗ %.1f  %s\n         → %s\n", row.Weight, onLine(row.Text), onLine(row.Advice.String()))
	}
	for _, lack := range r.Lacks {
		fmt.Fprintf(out, "this machine lacks %s\n", onLine(lack))
	}
	running := ""
	if !r.Running {
		running = ", as its ini has it: it does not run"
	}
	_, err := fmt.Fprintf(out, "\n%s: %.1f %s (confine = %s%s)\n", r.Vassal, r.Score, r.Word, r.Level, running)
	return err
}

func printReports(out io.Writer, all []exposure.Report) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tLEVEL\tSCORE\tWORD\tWORST")
	for i := range all {
		r := &all[i]
		worst := "-"
		if bad := r.Worst(); len(bad) > 0 {
			worst = firstLine(plain(bad[0].Text), 60)
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%s\n", r.Vassal, r.Level, r.Score, r.Word, worst)
	}
	return w.Flush()
}
