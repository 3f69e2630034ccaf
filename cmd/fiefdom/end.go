package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/internal/hostsfile"
)

func endCommand() *cobra.Command {
	return &cobra.Command{
		Use: "end INSTANCE", Short: "End what a killed emperor has left running", Args: cobra.ExactArgs(1),
		Long: `End ends the vassals, the router and all else that a killed emperor of an instance
has left, and removes its firewall rules: for when no next emperor can or shall
adopt them. The emperor's ini is not read. An emperor that runs is left alone; TERM
(systemctl stop) ends him with all that is his.`,
		Example: "  fiefdom end emperor",
		RunE: func(cmd *cobra.Command, args []string) error {
			return endInstance(cmd.Context(), args[0])
		},
	}
}

// endInstance takes the place of the instance's next emperor, as one who is told to
// stop before he has come to run.
func endInstance(ctx context.Context, name string) (err error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%w: %q is no name of an instance", errUsage, name)
	}
	c := &emperor.Config{Instance: name, Runtime: filepath.Join(runtimeRoot, name), State: filepath.Join(stateRoot, name)}
	if _, err := os.Stat(c.Runtime); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing of an emperor %q is left in %s: %w", name, runtimeRoot, emperor.ErrNotFound)
	}
	instance, err := emperor.Lock(c)
	if err != nil {
		return err
	}
	r := &runner{loaded: &loaded{config: c}, instance: instance, log: newLog(os.Stderr, "text")}
	r.keeper = r.newKeeper()
	if _, err := r.adoptRouter(ctx, nil); err != nil { // it knows the sockets that are elsewhere
		r.log.Warn("the router that was left", "err", err)
	}
	err = errors.Join(r.endFound(), removeHosts(hostsfile.Path, filepath.Join(c.State, hostsRecord), name))
	if err != nil {
		return errors.Join(err, instance.Leave()) // it is on record
	}
	return instance.Unlock()
}
