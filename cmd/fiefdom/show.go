package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
)

func showCommand(t *target) *cobra.Command {
	var origin, foreign bool
	c := &cobra.Command{
		Use: "show FILE[:SECTION]", Short: "Print the effective options of an ini",
		Long: `Show expands an ini and prints its options, "key = value" a line, in their order.
"-" is standard input. With --config the file is a vassal of that emperor, and what
it gives to all vassals is there too.`,
		Example: "  fiefdom show vassals/blog.ini\n  fiefdom show --origin /etc/fiefdom/emperor.ini\n  fiefdom show --config /etc/fiefdom/emperor.ini vassals/blog.ini",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, ok := ini.FileOf(args[0])
			if ok {
				if err := mustExist(file); err != nil {
					return err
				}
			}
			if t.config != "" {
				if !ok {
					return fmt.Errorf("%w: %s is no vassal of an emperor; name a file", errUsage, args[0])
				}
				return showVassal(cmd.OutOrStdout(), t.config, file, strings.TrimPrefix(args[0][len(file):], ":"), origin)
			}
			if owner, tenants := ownerOf(file); ok && tenants {
				return runAs(owner, "show", "--foreign", "--origin="+strconv.FormatBool(origin), "--", args[0])
			}
			options := ini.Options{IsOption: knownToEmperor}
			if foreign {
				options = ini.Networked(options)
			} else {
				options = ini.Trusted(options)
			}
			f, err := ini.Load(args[0], options)
			if err != nil {
				if errs, ok := errors.AsType[ini.Errors](err); ok {
					return printErrors(errs)
				}
				return err
			}
			printPairs(cmd.OutOrStdout(), f.Pairs, origin)
			return printErrors(f.Warnings)
		},
	}
	c.Flags().BoolVar(&origin, "origin", false, "print the file and line of each option before it")
	c.Flags().BoolVar(&foreign, "foreign", false, "the file is of a tenant, whose rights this process has")
	if err := c.Flags().MarkHidden("foreign"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

// showVassal prints the options of a vassal of the emperor's that config describes.
func showVassal(out io.Writer, config, file, section string, origin bool) error {
	l, err := emperorOf(config)
	if err != nil {
		return err
	}
	pairs, errs := emperor.ShowVassal(l.config, file, section)
	printPairs(out, pairs, origin)
	return printErrors(errs)
}

func printPairs(out io.Writer, pairs []ini.Pair, origin bool) {
	for _, p := range pairs {
		if p.Made {
			continue
		}
		if origin {
			fmt.Fprintf(out, "%s: ", p.Pos)
		}
		fmt.Fprintf(out, "%s = %s\n", p.Key, p.Value)
	}
}
