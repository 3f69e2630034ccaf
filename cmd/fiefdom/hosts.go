package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/hostsfile"
)

func hostsCommand(t *target) *cobra.Command {
	var install, remove, asJSON bool
	c := &cobra.Command{
		Use: "hosts", Short: "Print the vassals' names for /etc/hosts, or keep them there", Args: cobra.NoArgs,
		Long: `Hosts prints the names and addresses of all vassals as lines of /etc/hosts, for
programs of the host itself: a reverse proxy, above all. Vassals need no such lines.
With --install the emperor keeps them in /etc/hosts, between two marks, from now on:
whenever a vassal comes, goes or moves. Nothing else in the file is touched. They stay when
he stops, since a proxy that starts before him must find the names. --remove takes
them away, also when no emperor runs.`,
		Example: "  fiefdom hosts\n  fiefdom hosts --install\n  fiefdom hosts --remove",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var keep *bool
			switch {
			case install && remove:
				return fmt.Errorf("%w: want --install or --remove, not both", errUsage)
			case install || remove:
				keep = &install
			}
			client, err := t.client()
			var told hostsTold
			if err == nil {
				err = client.Hosts(cmd.Context(), keep, &told)
			}
			if remove && errors.Is(err, emperor.ErrNotFound) {
				told, err = t.removeLeftHosts(err)
			}
			if err != nil {
				return err
			}
			switch out := cmd.OutOrStdout(); {
			case asJSON:
				return printJSON(out, told)
			case install:
				fmt.Fprintf(out, "%s has the names of %s, and is kept so\n", told.File, told.Instance)
			case remove:
				fmt.Fprintf(out, "%s has no names of %s any more\n", told.File, told.Instance)
			default:
				fmt.Fprint(out, hostsfile.Block(told.Instance, blockLines(told.Entries)))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&install, "install", false, "keep them in /etc/hosts from now on")
	c.Flags().BoolVar(&remove, "remove", false, "take them away")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// removeLeftHosts takes away what an emperor has left who does not run.
func (t *target) removeLeftHosts(absent error) (hostsTold, error) {
	state, name := "", t.instance
	if t.config != "" {
		l, err := loadEmperor(t.config)
		if err != nil {
			return hostsTold{}, err
		}
		state, name = l.config.State, l.config.Instance
	}
	if name == "" {
		left, err := hostsfile.Instances(hostsfile.Path)
		switch {
		case err != nil:
			return hostsTold{}, err
		case len(left) == 0:
			return hostsTold{}, absent
		case len(left) > 1:
			return hostsTold{}, fmt.Errorf("%s has names of several emperors; choose one with --instance: %s", hostsfile.Path, strings.Join(left, " "))
		}
		name = left[0]
	}
	if state == "" {
		state = filepath.Join(stateRoot, name)
	}
	told := hostsTold{Instance: name, File: hostsfile.Path, Entries: []hostEntry{}}
	return told, removeHosts(hostsfile.Path, filepath.Join(state, hostsRecord), name)
}
