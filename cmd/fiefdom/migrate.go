package main

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"fiefdom/internal/ini"
	"fiefdom/internal/migrate"
	"fiefdom/vassal"
)

func migrateCommand() *cobra.Command {
	var asJSON bool
	var read string
	c := &cobra.Command{
		Use: "migrate DIR|FILE...", Short: "Say what becomes of the files of a uWSGI emperor",
		Long: `Migrate reads the file of a uWSGI emperor with the vassals that it points at, or
a folder of vassals, or a vassal. Of each option it says whether it works as it
is, works with a difference, is needless, is not there or is unknown.

It starts and changes nothing, runs no command of a file and reads no file with
more rights than its owner has. The exit code is 0 if all can move as it is, and
1 if something needs a hand; docs/migrating.md has the steps.`,
		Example: "  fiefdom migrate /etc/uwsgi/emperor.ini\n  fiefdom migrate --json /etc/uwsgi/vassals",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			if read != "" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(readInert(paths, read == readVassals))
			}
			m := newMover()
			for _, path := range paths {
				if err := m.path(path); err != nil {
					return err
				}
			}
			report := migrate.NewReport(m.found)
			var err error
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.Write(cmd.OutOrStdout())
			}
			if err == nil && !report.Moves {
				return exitAs{exitFailed}
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&read, "read", "", "only print the options of inis, as JSON, under their owner's rights")
	if err := c.Flags().MarkHidden("read"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

// migrationTables are the tables that parse the files.
var migrationTables = migrate.Tables{
	Dialect: func(name string) bool { return dialectNames()[name] },
	Honoured: func(side migrate.Side, name string) bool {
		if side == migrate.Emperor {
			return honouredByEmperor()[name]
		}
		return vassal.Honoured(name)
	},
	Needless: vassal.Needless,
	Known:    knownToEmperor,
}

var dialectNames = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, d := range ini.Dialect() {
		m[d.Name] = true
	}
	return m
})

var honouredByEmperor = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, name := range emperorNames() {
		m[name] = true
	}
	return m
})

// unread says that a value has references whose meaning nobody looked up.
func unread(p ini.Pair) bool {
	return slices.ContainsFunc([]string{"@(", "$(", "%("}, func(ref string) bool { return strings.Contains(p.Value, ref) })
}
