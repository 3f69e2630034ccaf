package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/internal/ini"
	"fiefdom/tuntap"
)

func checkCommand(t *target) *cobra.Command {
	var asJSON bool
	var as string
	c := &cobra.Command{
		Use: "check FILE...", Short: "Check emperors' and vassals' inis",
		Long: `Check reads inis as the emperor would and prints everything that is wrong with
them. With an emperor's ini the vassals in its directories are checked too,
also against each other: addresses and sockets that two have, rules that never
match because others come first, pools that this host uses already. With --config
the files are vassals of that emperor: with the options that it gives to all, and
among its others; with --as they are judged as if they were USER's, by tyrant mode
and its policy. The exit code is 4 if something is wrong.`,
		Example: "  fiefdom check /etc/fiefdom/emperor.ini\n  fiefdom check vassals/blog.ini\n  fiefdom check --config /etc/fiefdom/emperor.ini new/blog.ini\n  fiefdom check --config /etc/fiefdom/emperor.ini --as alice new/blog.ini",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			var all ini.Errors
			check := checkFile
			if t.config != "" {
				l, err := emperorOf(t.config)
				if err != nil {
					return err
				}
				owner, err := l.owner(as)
				if err != nil {
					return err
				}
				check = func(path string) (ini.Errors, error) { return l.checkVassal(path, owner) }
			} else if as != "" {
				return fmt.Errorf("%w: --as %s is about a vassal of an emperor in tyrant mode; name its ini by --config", errUsage, as)
			}
			for _, file := range files {
				if err := mustExist(file); err != nil {
					return err
				}
				errs, err := check(file)
				if err != nil {
					return err
				}
				all = append(all, errs...)
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), append(ini.Errors{}, inOrder(all)...)); err != nil {
					return err
				}
				return verdictOn(all)
			}
			return printErrors(all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, on standard output: a list of what is wrong")
	c.Flags().StringVar(&as, "as", "", "with --config, in tyrant mode: judge as if the files were this user's")
	return c
}

// checkFile checks one file as what it is: an emperor's is one with emperor
// or tuntap-router, and never a tenant's, whose file is not expanded with
// root's rights. What cannot be read is taken for a vassal's; the checks will
// say what is wrong with it.
func checkFile(path string) (ini.Errors, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return ini.Errors{{Pos: ini.Pos{File: path}, Message: "it is a folder; name the emperor's ini, and its vassals are checked with it, or single inis"}}, nil
	}
	if _, foreign := ownerOf(path); foreign {
		return emperor.CheckVassal(path), nil
	}
	f, errs := expandEmperor(path)
	if errs != nil || !isEmperors(f) {
		return emperor.CheckVassal(path), nil
	}
	l, errs := parseEmperor(path, f)
	if errs.Failed() {
		return errs, nil
	}
	more, err := emperor.Check(l.config, l.vassalNetworks())
	if err != nil {
		return nil, fmt.Errorf("check the vassals of %s: %w", path, err)
	}
	errs = append(errs, networkWarnings(l.networks)...)
	return append(errs, more...), nil
}

// emperorOf reads the emperor's ini that --config names. As without --config, a
// tenant's is none: it is expanded with the rights of who runs the command.
func emperorOf(config string) (*loaded, error) {
	if owner, foreign := ownerOf(config); foreign {
		return nil, printErrors(ini.Errors{{
			Pos:     ini.Pos{File: config},
			Message: fmt.Sprintf("it belongs to uid %d, and what it says would be done with the rights of root; give it to root", owner.Uid),
		}})
	}
	return loadEmperor(config)
}

// owner is whose the files are to be taken for; nil: theirs.
func (l *loaded) owner(name string) (*emperor.Owner, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: --as: no user %q on this machine", errUsage, name)
	case !l.config.Tyrant:
		return nil, fmt.Errorf("%w: --as %s: without emperor-tyrant = true it does not matter whose an ini is", errUsage, name)
	case os.Geteuid() != 0 && u.Uid != strconv.Itoa(os.Geteuid()):
		return nil, fmt.Errorf("--as %s: only root reads a file with the rights of another", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &emperor.Owner{UID: uint32(uid), GID: uint32(gid)}, err
}

// checkVassal checks one file as a vassal of the emperor, and of the owner if there
// is one.
func (l *loaded) checkVassal(path string, as *emperor.Owner) (ini.Errors, error) {
	errs, err := emperor.CheckAmong(l.config, l.vassalNetworks(), path, as)
	if err != nil {
		return nil, fmt.Errorf("check %s among the vassals: %w", path, err)
	}
	return errs, nil
}

// networkWarnings are about networks that are fine by themselves: rules that
// never decide, and pools that are somebody else's on this host. It is no error:
// the file may be for another host.
func networkWarnings(networks []tuntap.NetworkOptions) (errs ini.Errors) {
	said := map[ini.Error]bool{} // rules before any network are those of each
	for i := range networks {
		n := &networks[i]
		warnings := n.Shadowed()
		if n.Native() {
			if clash, ok := errors.AsType[*nat.ClashError](nat.Clash(n.Pool(), n.Device)); ok {
				warnings = append(warnings, ini.Error{Pos: n.Pos, Warning: true, Message: clash.Error() + "; on this host the emperor would not start"})
			}
		}
		for _, w := range warnings {
			if !said[w] {
				said[w], errs = true, append(errs, w)
			}
		}
	}
	return errs
}

func isEmperors(f *ini.File) bool {
	return slices.ContainsFunc(f.Pairs, func(p ini.Pair) bool { return p.Key == "emperor" || p.Key == "tuntap-router" })
}
