package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
)

func execCommand(t *target) *cobra.Command {
	var tty bool
	c := &cobra.Command{
		Use: "exec NAME -- COMMAND [ARGUMENT...]", Short: "Run a command in a vassal's jail",
		Long: `Run a command in a vassal's jail: in its namespaces and its root, with its user, groups, limits
and environment, and without any capability. The exit code is the command's; 128 and the signal's
number if a signal killed it. It ends with the vassal, and with this command.`,
		Example: "  fiefdom exec blog -- ss -tln\n  fiefdom exec blog sh",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := emperor.ExecRequest{Vassal: args[0], Args: args[1:]}
			if req.Args[0] == "--" {
				req.Args = req.Args[1:]
			}
			if len(req.Args) == 0 {
				return fmt.Errorf("%w: no command; want NAME -- COMMAND [ARGUMENT...]", errUsage)
			}
			dir, err := t.runtimeDir()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("tty") {
				tty = isTerminal(os.Stdin) && isTerminal(os.Stdout)
			}
			code, err := execIn(cmd, dir, req, tty)
			if err != nil {
				return err
			}
			if code != exitOK {
				return exitAs{code}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal of its own (so it is when stdin and stdout are terminals, without --tty=false)")
	c.Flags().SetInterspersed(false) // what follows NAME is the command's
	return c
}

// execIn runs a command with our own descriptors, or at a terminal of its own.
func execIn(cmd *cobra.Command, dir string, req emperor.ExecRequest, tty bool) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	if !tty {
		return emperor.Exec(cmd.Context(), dir, req, []*os.File{os.Stdin, os.Stdout, os.Stderr}, signals, nil)
	}
	term, err := openTerminal()
	if err != nil {
		return 0, err
	}
	req.Terminal, req.Term = true, os.Getenv("TERM")
	files := []*os.File{term.theirs, term.theirs, term.theirs}
	code, err := emperor.Exec(cmd.Context(), dir, req, files, signals, term.begin)
	return code, errors.Join(err, term.end())
}
