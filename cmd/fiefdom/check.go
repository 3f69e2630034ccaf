package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE...", Short: "Check emperors' and vassals' inis",
		Long: `Check reads inis as the emperor would and prints everything that is wrong with
them. With an emperor's ini the vassals in its directories are checked too,
also against each other. The exit code is 4 if something is wrong.`,
		Example: "  fiefdom check /etc/fiefdom/emperor.ini\n  fiefdom check vassals/blog.ini",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			var all ini.Errors
			for _, file := range files {
				if err := mustExist(file); err != nil {
					return err
				}
				errs, err := checkFile(file)
				if err != nil {
					return err
				}
				all = append(all, errs...)
			}
			return printErrors(all)
		},
	}
}

// checkFile checks one file as what it is: an emperor's is one with emperor
// or tuntap-router.
func checkFile(path string) (ini.Errors, error) {
	if !isEmperors(path) {
		return emperor.CheckVassal(path), nil
	}
	l, errs := readEmperor(path)
	if errs.Failed() {
		return errs, nil
	}
	more, err := emperor.Check(l.config, l.vassalNetworks())
	if err != nil {
		return nil, fmt.Errorf("check the vassals of %s: %w", path, err)
	}
	return append(errs, more...), nil
}

// isEmperors says that a file is an emperor's. What cannot be read is taken for
// a vassal's; the checks will say what is wrong with it.
func isEmperors(path string) bool {
	if _, foreign := ownerOf(path); foreign {
		return false // an emperor's is root's; what others write is not expanded with root's rights
	}
	f, err := ini.Load(path, ini.Options{IsOption: knownToEmperor})
	if err != nil {
		return false
	}
	for _, p := range f.Pairs {
		if p.Key == "emperor" || p.Key == "tuntap-router" {
			return true
		}
	}
	return false
}
