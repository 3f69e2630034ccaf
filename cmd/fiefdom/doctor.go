package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func doctorCommand(t *target) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check this machine", Args: cobra.NoArgs,
		Long: `Doctor looks at what an emperor needs of this machine and says how to mend what
is not there. With --config also the networks of that emperor's ini are compared
with the host's. It changes nothing. The exit code is 1 if something FAILs.`,
		Example: "  fiefdom doctor\n  fiefdom doctor --config /etc/fiefdom/emperor.ini",
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := machineChecks()
			if t.config != "" {
				l, err := loadEmperor(t.config)
				if err != nil {
					return err
				}
				checks = append(checks, clashChecks(l.networks)...)
			}
			found := examine(checks)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), found); err != nil {
					return err
				}
			} else {
				printFindings(cmd.OutOrStdout(), found)
			}
			return verdictOf(found)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// How a check of the machine ended.
const (
	levelOK   = "ok"
	levelWarn = "warn" // it works, with less
	levelFail = "FAIL" // an emperor cannot run, or not as its ini wants
)

// finding is what a check found. The schema of "doctor --json" is a list of
// them, and is stable: fields are only added.
type finding struct {
	Name   string `json:"name"`
	Level  string `json:"level"` // ok, warn or FAIL
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do about it, when it is not ok
}

// check is one question to the machine.
type check struct {
	name string
	look func() finding // without the name
}

// Findings in their three kinds.
func fine(format string, args ...any) finding {
	return finding{Level: levelOK, Detail: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{Level: levelWarn, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(fix, format string, args ...any) finding {
	return finding{Level: levelFail, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func examine(checks []check) []finding {
	found := make([]finding, 0, len(checks))
	for _, c := range checks {
		f := c.look()
		f.Name = c.name
		found = append(found, f)
	}
	return found
}

func printFindings(w io.Writer, found []finding) {
	for _, f := range found {
		fmt.Fprintf(w, "%-4s  %-10s  %s\n", f.Level, f.Name, hanging(f.Detail))
		if f.Fix != "" {
			fmt.Fprintf(w, "%18s%s\n", "", hanging("fix: "+f.Fix))
		}
	}
}

// hanging indents the lines after the first as far as details are.
func hanging(s string) string { return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", 18)) }

// verdictOf is the error of an examination: which checks failed.
func verdictOf(found []finding) error {
	var failed []string
	for _, f := range found {
		if f.Level == levelFail {
			failed = append(failed, f.Name)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return errors.New("this machine is not ready: " + strings.Join(failed, ", "))
}
