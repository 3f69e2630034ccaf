package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"fiefdom/internal/ini"
)

func showCommand() *cobra.Command {
	var origin, foreign bool
	c := &cobra.Command{
		Use: "show FILE[:SECTION]", Short: "Print the effective options of an ini",
		Long: `Show expands an ini and prints its options, "key = value" a line, in their order.
"-" is standard input.`,
		Example: "  fiefdom show vassals/blog.ini\n  fiefdom show --origin /etc/fiefdom/emperor.ini",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, ok := ini.FileOf(args[0])
			if ok {
				if err := mustExist(file); err != nil {
					return err
				}
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
			for _, p := range f.Pairs {
				if p.Made {
					continue
				}
				if origin {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ", p.Pos)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s = %s\n", p.Key, p.Value)
			}
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
