package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
)

func firewallCommand(t *target) *cobra.Command {
	c := &cobra.Command{
		Use: "firewall", Short: "Show rules and their hits, and change them while they are in force",
		Long: `Firewall shows the chains of the networks, and the rules of vassals' own, in the order
in which they are asked, with the lines that they stand in and how often each has
decided. Rules are added and deleted at once, for connections, processes and files as
they are. What is in no file is shown as unsaved: it outlives the emperor's process
and the router's, and is gone when its file is read again, or the emperor stops.`,
		Example: "  fiefdom firewall list\n  fiefdom firewall add fief0 out deny any 203.0.113.0/24\n  fiefdom firewall reload",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(firewallList(t), firewallAdd(t), firewallDel(t), firewallReload(t))
	return c
}

func firewallList(t *target) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list [NETWORK|VASSAL]", Short: "Show rules in their order, with lines and hits", Args: cobra.MaximumNArgs(1),
		Long: `List shows the chains of a network, by its device, or the rules of a vassal's own; of
all of them without a name. Who is not root sees those of his vassals.`,
		Example: "  fiefdom firewall list\n  fiefdom firewall list fief0\n  fiefdom firewall list --json shop",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			all, err := client.Rules(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printChains(cmd.OutOrStdout(), all, len(args) == 0)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// ruleFlags are what add and del have in common.
func ruleFlags(c *cobra.Command, o *emperor.RuleOrder, asJSON *bool) {
	c.Flags().StringVar(&o.Device, "device", "", "the device, when the vassal has several")
	c.Flags().BoolVar(&o.Save, "save", false, "write it into the ini, too")
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

func firewallAdd(t *target) *cobra.Command {
	var o emperor.RuleOrder
	var asJSON bool
	c := &cobra.Command{
		Use: "add NETWORK|VASSAL out|in RULE...", Short: "Add a rule, at once", Args: cobra.MinimumNArgs(3),
		Long: `Add puts a rule in force: as the last of its chain, or before the rule that has the
number now which --at gives. RULE is written as in an ini: for a network
ACTION [SRC DST [PROTO [PORTS]]], for a vassal SRC DST ACTION.
With --save it is written into the ini, behind the rule that it follows.`,
		Example: `  fiefdom firewall add fief0 out deny any 203.0.113.0/24 tcp 25
  fiefdom firewall add --at 1 fief0 in allow 198.51.100.7 10.9.0.7
  fiefdom firewall add --save shop out any 203.0.113.9 deny`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("at") && o.At < 1 {
				return fmt.Errorf("%w: --at %d; want the number of a rule, from 1 on", errUsage, o.At)
			}
			o.Of, o.Direction, o.Rule = args[0], args[1], strings.Join(args[2:], " ")
			return t.changeRule(cmd, o, asJSON)
		},
	}
	c.Flags().IntVar(&o.At, "at", 0, "the number that the rule is to have")
	ruleFlags(c, &o, &asJSON)
	return c
}

func firewallDel(t *target) *cobra.Command {
	o := emperor.RuleOrder{Delete: true}
	var asJSON bool
	c := &cobra.Command{
		Use: "del NETWORK|VASSAL out|in NUMBER|RULE...", Short: "Delete a rule, at once", Args: cobra.MinimumNArgs(3),
		Long: `Del takes a rule out of force, by its number or by its words. One that a file has comes
back when that is read again, unless --save takes its line out of the file.`,
		Example: "  fiefdom firewall del fief0 out 2\n  fiefdom firewall del --save shop out any 203.0.113.9 deny",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Of, o.Direction, o.Rule = args[0], args[1], strings.Join(args[2:], " ")
			return t.changeRule(cmd, o, asJSON)
		},
	}
	ruleFlags(c, &o, &asJSON)
	return c
}

func firewallReload(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Take the chains that the emperor's ini has now", Args: cobra.NoArgs,
		Long: `Reload reads the chains of the emperor's ini again and puts them in force; unsaved rules
of networks are gone. Vassals and connections go on, and nothing else of the file counts
before the emperor's next start or upgrade. (Vassals' inis are read when they change.)`,
		Example: "  fiefdom firewall reload",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			all, err := client.ReloadRules(cmd.Context())
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(c emperor.RuleChain) bool { return c.Vassal != "" })
			return printChains(cmd.OutOrStdout(), all, false)
		},
	}
}

func (t *target) changeRule(cmd *cobra.Command, o emperor.RuleOrder, asJSON bool) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	a, err := client.ChangeRule(cmd.Context(), o)
	if err != nil {
		return err
	}
	for _, w := range a.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s (warning)\n", plain(w))
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), a)
	}
	tellChange(cmd.OutOrStdout(), &o, a)
	return nil
}

// tellChange says what was done, and what becomes of it.
func tellChange(out io.Writer, o *emperor.RuleOrder, a *emperor.RuleAnswer) {
	what, where := "added", rulePlace(&a.Rule)
	if o.Delete {
		what = "deleted"
	}
	number := ""
	if a.Rule.Number > 0 { // else it was deleted before
		number = " " + strconv.Itoa(a.Rule.Number)
	}
	line := fmt.Sprintf("%s %s, rule%s %s: %s", chainName(&a.Chain), a.Chain.Direction, number, what, a.Rule.Text)
	switch {
	case o.Delete && a.Rule.Unsaved != "":
		line += fmt.Sprintf("\nunsaved: %s has it still, and it comes back when that is read again; --save deletes it there", where)
	case a.Rule.Unsaved != "":
		line += "\nunsaved: it is gone when its file is read again, or the emperor stops; --save writes it"
	case a.Rule.File != "" && o.Delete:
		line += "\nand its line, " + where
	case a.Rule.File != "":
		line += "\nwritten to " + where
	}
	fmt.Fprintln(out, plain(line))
}

func chainName(c *emperor.RuleChain) string {
	if c.Vassal != "" {
		return c.Vassal + " " + c.Device
	}
	return c.Network
}

func rulePlace(r *emperor.RuleStatus) string {
	if r.File == "" {
		return "-"
	}
	return fileLine(r.File, r.Line)
}

// printChains prints rules as a table. brief leaves out devices without any.
func printChains(out io.Writer, all []emperor.RuleChain, brief bool) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "OF\tCHAIN\tNO\tRULE\tHITS\tLINE")
	for i := range all {
		c := &all[i]
		row := func(no, rule, hits, place string) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", plain(chainName(c)), c.Direction, no, rule, hits, plain(place))
		}
		for i := range c.Rules {
			r := &c.Rules[i]
			no, hits, place := "-", "-", rulePlace(r)
			if r.Number > 0 {
				no = strconv.Itoa(r.Number)
			}
			if r.Hits != nil {
				hits = strconv.FormatUint(*r.Hits, 10)
			}
			switch r.Unsaved {
			case "added":
				place = "unsaved"
			case "deleted":
				place += " deleted, unsaved"
			}
			row(no, r.Text, hits, place)
		}
		if c.Error != "" {
			row("", "the router may have others: "+plain(c.Error), "", "")
		}
		switch {
		case c.Then != "":
			row("", c.Then, "", "")
		case len(c.Rules) == 0 && (!brief || c.Vassal == ""):
			row("", "no rules", "", "")
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
	return nil
}

// completeRules gives the shells' completion what stands behind the words of
// fiefdom firewall: whose rules, which chain, and how a rule goes on.
func completeRules(t *target, root *cobra.Command) {
	const none = cobra.ShellCompDirectiveNoFileComp
	for _, c := range root.Commands() {
		if c.Name() != "firewall" {
			continue
		}
		for _, sub := range c.Commands() {
			if sub.Name() == "reload" {
				continue
			}
			sub.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				switch {
				case len(args) == 0:
					return t.ruleOwners(cmd.Context()), none
				case len(args) == 1 && cmd.Name() != "list":
					return []string{"out\tfrom vassals", "in\ttowards vassals"}, none
				case len(args) > 1 && cmd.Name() != "list":
					return t.ruleWords(cmd, args), none
				}
				return nil, none
			}
		}
	}
}

// ruleOwners are the networks and vassals that have rules, or could.
func (t *target) ruleOwners(ctx context.Context) (names []string) {
	for _, c := range t.chainsOf(ctx, "") {
		name := c.Network + "\tnetwork"
		if c.Vassal != "" {
			name = c.Vassal + "\tvassal"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (t *target) chainsOf(ctx context.Context, name string) []emperor.RuleChain {
	client, err := t.client()
	if err != nil {
		return nil
	}
	all, err := client.Rules(ctx, name)
	if err != nil {
		return nil
	}
	return all
}

// ruleWords are what may come next: the numbers of rules to delete, and the words
// of which rules are made.
func (t *target) ruleWords(cmd *cobra.Command, args []string) (next []string) {
	actions := []string{"allow\tlet pass", "deny\tdrop", "reject\tdrop, and tell the sender"}
	protocols := []string{"tcp", "udp", "sctp", "icmp", "icmp6"}
	device := false
	for _, c := range t.chainsOf(cmd.Context(), args[0]) {
		device = device || c.Vassal != ""
		if cmd.Name() != "del" || len(args) != 2 || c.Direction != args[1] {
			continue
		}
		for _, r := range c.Rules {
			if r.Number > 0 {
				next = append(next, fmt.Sprintf("%d\t%s", r.Number, r.Text))
			}
		}
	}
	const first = 2                             // where the words begin
	action, from, to := first, first+1, first+2 // and what they are
	if device {
		action, from, to = first+2, first, first+1
	}
	switch at := len(args); {
	case at == action:
		next = append(next, actions...)
	case at == from || at == to:
		next = append(next, "any\tany address")
	case at == first+3 && !device:
		next = append(next, protocols...)
	}
	return next
}
