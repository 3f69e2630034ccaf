package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"fiefdom/internal/ini"
)

func showCommand() *cobra.Command {
	var origin bool
	c := &cobra.Command{
		Use: "show FILE", Short: "Print the effective options of an ini",
		Long:    `Show expands an ini and prints its options, "key = value" a line, in their order.`,
		Example: "  fiefdom show vassals/blog.ini\n  fiefdom show --origin /etc/fiefdom/emperor.ini",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustExist(args[0]); err != nil {
				return err
			}
			if owner, foreign := ownerOf(args[0]); foreign {
				return runAs(owner, "show", "--origin="+strconv.FormatBool(origin), "--", args[0])
			}
			f, err := ini.Load(args[0], ini.Options{IsOption: knownToEmperor})
			if err != nil {
				if errs, ok := errors.AsType[ini.Errors](err); ok {
					return printErrors(errs)
				}
				return err
			}
			for _, p := range f.Pairs {
				if origin {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ", p.Pos)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s = %s\n", p.Key, p.Value)
			}
			return printErrors(f.Warnings)
		},
	}
	c.Flags().BoolVar(&origin, "origin", false, "print the file and line of each option before it")
	return c
}
