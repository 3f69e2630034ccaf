package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completeNames gives the shells' completion what stands behind a command's
// NAME and FILE: the vassals that the emperor has, and inis.
func completeNames(root *cobra.Command, t *target) {
	for _, c := range root.Commands() {
		words := strings.Fields(c.Use)
		if len(words) < 2 || c.Name() == "new" {
			continue
		}
		switch word := strings.TrimLeft(words[1], "["); {
		case strings.HasPrefix(word, "NAME"):
			c.ValidArgsFunction = t.completeVassals(strings.HasPrefix(word, "NAME..."))
		case strings.HasPrefix(word, "FILE"):
			c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return []string{"ini"}, cobra.ShellCompDirectiveFilterFileExt
			}
		}
	}
	completeRules(t, root)
	err := root.MarkPersistentFlagFilename("config", "ini")
	if err == nil {
		err = root.RegisterFlagCompletionFunc("instance", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return instances(), cobra.ShellCompDirectiveNoFileComp
		})
	}
	if err != nil {
		panic(err) // there is no such flag
	}
}

// completeVassals are the vassals that the user may see, those that the line
// has already aside.
func (t *target) completeVassals(several bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		client, err := t.client()
		if err != nil || len(args) > 0 && !several {
			return nil, none
		}
		all, err := client.List(cmd.Context())
		if err != nil {
			return nil, none
		}
		var names []string
		for _, s := range all {
			if !slices.Contains(args, s.Name) {
				names = append(names, s.Name+"\t"+string(s.State))
			}
		}
		return names, none
	}
}
