package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
)

func showCommand(t *target) *cobra.Command {
	var p pairPrinter
	var foreign bool
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
				return showVassal(cmd.OutOrStdout(), t.config, file, strings.TrimPrefix(args[0][len(file):], ":"), p)
			}
			if owner, tenants := ownerOf(file); ok && tenants {
				return runAs(owner, "show", "--foreign", "--origin="+strconv.FormatBool(p.origin), "--json="+strconv.FormatBool(p.json), "--", args[0])
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
			if err := p.print(cmd.OutOrStdout(), f.Pairs); err != nil {
				return err
			}
			return printErrors(f.Warnings)
		},
	}
	c.Flags().BoolVar(&p.json, "json", false, "print JSON, with the file and line of each option")
	c.Flags().BoolVar(&p.origin, "origin", false, "print the file and line of each option before it")
	c.Flags().BoolVar(&foreign, "foreign", false, "the file is of a tenant, whose rights this process has")
	if err := c.Flags().MarkHidden("foreign"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

// showVassal prints the options of a vassal of the emperor's that config describes.
func showVassal(out io.Writer, config, file, section string, p pairPrinter) error {
	l, err := emperorOf(config)
	if err != nil {
		return err
	}
	pairs, errs := emperor.ShowVassal(l.config, file, section)
	if err := p.print(out, pairs); err != nil {
		return err
	}
	return printErrors(errs)
}

// pairPrinter says how options are printed.
type pairPrinter struct{ origin, json bool }

// print prints the options of an ini. Who has them in a file or pipe has them
// byte by byte; a terminal is not steered by what somebody wrote there.
func (p pairPrinter) print(out io.Writer, pairs []ini.Pair) error {
	pairs = slices.DeleteFunc(slices.Clone(pairs), func(p ini.Pair) bool { return p.Made })
	if p.json {
		return printJSON(out, append([]ini.Pair{}, pairs...))
	}
	f, _ := out.(*os.File)
	seen := f != nil && isTerminal(f)
	for _, pair := range pairs {
		line := fmt.Sprintf("%s = %s\n", pair.Key, pair.Value)
		if p.origin {
			line = fmt.Sprintf("%s: %s", pair.Pos, line)
		}
		if seen {
			line = plain(line)
		}
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}
