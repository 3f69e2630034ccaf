package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
)

// version is set by the linker.
var version = ""

// target says which emperor a command talks to.
type target struct{ instance, config string }

func newRoot() *cobra.Command {
	var t target
	var file string
	root := &cobra.Command{
		Use:   "fiefdom",
		Short: "An emperor: apps in network jails, from ini files",
		Long: `Fiefdom supervises apps that each live in a network namespace of their own,
described by an ini file each, behind a userspace router that decides what may pass.`,
		Example:       "  fiefdom run /etc/fiefdom/emperor.ini\n  fiefdom ps",
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		Version: versionText(),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return cmd.Help()
			}
			return runEmperor(cmd.Context(), file, os.Stderr, "text")
		},
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.Flags().StringVar(&file, "ini", "", "run this emperor's ini, as uwsgi --ini does")
	root.PersistentFlags().StringVar(&t.instance, "instance", "", "the emperor's name, when several run")
	root.PersistentFlags().StringVar(&t.config, "config", "", "the emperor's ini, instead of its name")
	root.AddCommand(
		runCommand(),
		checkCommand(&t),
		showCommand(&t),
		optionsCommand(),
		newCommand(&t),
		psCommand(&t),
		statusCommand(&t),
		securityCommand(&t),
		logsCommand(&t),
		eventsCommand(&t),
		topCommand(&t),
		execCommand(&t),
		migrateCommand(),
		explainCommand(&t),
		captureCommand(&t),
		firewallCommand(&t),
		hostsCommand(&t),
		upgradeCommand(&t),
		endCommand(),
		doctorCommand(&t),
		versionCommand(),
		demoCommand(),
	)
	root.AddCommand(wordCommands(&t)...)
	root.AddCommand(forPackagers()...)
	completeNames(root, &t)
	usageErrors(root)
	return root
}

// usageErrors makes a wrong number of arguments a usage error, with its exit code.
func usageErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%w: %w%s; see: %s --help", errUsage, err, wanted(cmd, args), cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// wanted is what would have been right: a command's arguments, or another command.
func wanted(cmd *cobra.Command, args []string) string {
	if cmd.HasParent() {
		return "; want: " + cmd.Parent().CommandPath() + " " + cmd.Use
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Sprintf("; did you mean %q?", near[0])
	}
	return ""
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  fiefdom version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": versionText(), "go": runtime.Version()})
			}
			fmt.Fprintln(cmd.OutOrStdout(), "fiefdom", versionText())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

// runtimeRoot is where instances have their runtime directories.
const runtimeRoot = "/run/fiefdom"

// client finds the emperor: by its ini, by its name, or as the only one.
func (t *target) client() (*emperor.Client, error) {
	dir, err := t.runtimeDir()
	if err != nil {
		return nil, err
	}
	return emperor.NewClient(dir), nil
}

func (t *target) runtimeDir() (string, error) {
	switch {
	case t.config != "":
		l, err := loadEmperor(t.config)
		if err != nil {
			return "", err
		}
		return l.config.Runtime, nil
	case t.instance != "":
		dir := filepath.Join(runtimeRoot, t.instance)
		if !answers(dir) {
			return "", emperor.NotFound("no emperor %q runs", t.instance)
		}
		return dir, nil
	}
	names := instances()
	switch len(names) {
	case 0:
		return "", emperor.NotFound("no emperor runs (looked in %s); start one (systemctl start fiefdom@emperor, or fiefdom run FILE), or name its ini with --config FILE if its runtime-dir is elsewhere", runtimeRoot)
	case 1:
		return filepath.Join(runtimeRoot, names[0]), nil
	}
	return "", fmt.Errorf("several emperors run; choose one with --instance: %s", strings.Join(names, " "))
}

// instances are the names of the emperors that run.
func instances() []string {
	// Owners of vassals may pass through an instance's directory, not list it.
	found, err := filepath.Glob(filepath.Join(runtimeRoot, "*"))
	if err != nil {
		return nil // a bad pattern, which it is not
	}
	var names []string
	for _, dir := range found {
		if answers(dir) {
			names = append(names, filepath.Base(dir))
		}
	}
	return names
}

// answers says whether an emperor listens in a runtime directory. One that was
// killed leaves its socket there.
func answers(dir string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, emperor.APISocket)}) == nil
}
