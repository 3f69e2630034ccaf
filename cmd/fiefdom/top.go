package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fiefdom/cmd/fiefdom/internal/top"
	"fiefdom/emperor"
)

func topCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "top", Short: "Watch the vassals: a live table", Args: cobra.NoArgs,
		Long: `Top shows all vassals with their state, CPU, memory, traffic, drops and restarts,
once a second. Keys: arrows select, l logs, s status, r restart, x stop, u start (each
asks first), o the next column's order, O the other way round, / a filter, q quit.
It goes on while the emperor is away.`,
		Example: "  fiefdom top\n  fiefdom top --instance shops",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range []*os.File{os.Stdin, os.Stdout} {
				if !isTerminal(f) || os.Getenv("TERM") == "dumb" {
					return errors.New("top needs a terminal; fiefdom ps prints the same once, with --json for programs")
				}
			}
			dir, err := t.runtimeDir()
			if err != nil {
				return err
			}
			return top.Run(cmd.Context(), top.Options{
				Emperor: emperor.NewClient(dir), Name: filepath.Base(dir), In: os.Stdin, Out: os.Stdout,
				Status: func(s emperor.Status) string {
					var b strings.Builder
					printStatus(&b, s, "")
					return b.String()
				},
			})
		},
	}
}
