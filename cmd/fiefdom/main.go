// Command fiefdom is an emperor: a process supervisor whose vassals live in
// network namespace jails behind a userspace tun router.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
	"fiefdom/internal/responder"
	"fiefdom/internal/vault"
	"fiefdom/tuntap/control"
	"fiefdom/vassal"
)

// The init stage's exec takes the credentials of the thread that calls it, so
// main must stay on the thread that it begins on.
func init() { runtime.LockOSThread() }

func main() { os.Exit(run(os.Args)) }

// Exit codes, the same for every command.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitInvalid  = 4
)

// run tells our own processes, which are started with a word that no user
// types, from a user's commands.
func run(args []string) int {
	if len(args) > 1 {
		switch args[1] {
		case vassal.InitStage:
			return vassal.Init()
		case control.RouterProcess:
			return control.Main(args[2:])
		case control.BridgeProcess:
			return control.BridgeMain(args[2:])
		case responder.Process:
			return responder.Main(args[2:])
		case vault.Process:
			return vault.Main(args[2:])
		case emperor.ExpanderProcess:
			if err := emperor.Expander(args[2:], os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return exitFailed
			}
			return exitOK
		case emperor.HookProcess:
			if err := emperor.HookMain(os.Stdin, os.Stdout); err != nil {
				fmt.Println(err)
				return exitFailed
			}
			return exitOK
		}
	}
	runtime.UnlockOSThread()
	cmd := newRoot()
	cmd.SetArgs(ownArgs()[1:])
	err := cmd.Execute()
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "fiefdom:", err)
	}
	return exitCode(err)
}

var (
	errUsage = errors.New("usage")
	errSaid  = errors.New("already said") // the command has printed what was wrong
)

// invalidConfig is a configuration that is not fit to run; all of it is
// printed before.
type invalidConfig struct{ error }

func (e invalidConfig) Unwrap() []error { return []error{e.error, errSaid} }

// printErrors prints what is wrong with files, warnings too, each file's in the
// order of its lines, and returns an invalidConfig if anything but warnings is
// among it.
func printErrors(errs ini.Errors) error {
	for _, err := range inOrder(errs) {
		if err.Warning {
			fmt.Fprintf(os.Stderr, "%s (warning)\n", plain(err.Error()))
		} else {
			fmt.Fprintln(os.Stderr, plain(err.Error()))
		}
	}
	return verdictOn(errs)
}

// verdictOn is the error of a command that has told all of errs.
func verdictOn(errs ini.Errors) error {
	if errs.Failed() {
		return invalidConfig{errs}
	}
	return nil
}

// inOrder sorts errors: those of a file together, by their lines.
func inOrder(errs ini.Errors) ini.Errors {
	seen := map[string]int{}
	for _, err := range errs {
		if _, ok := seen[err.Pos.File]; !ok {
			seen[err.Pos.File] = len(seen)
		}
	}
	return slices.SortedStableFunc(slices.Values(errs), func(a, b ini.Error) int {
		return cmp.Or(seen[a.Pos.File]-seen[b.Pos.File], a.Pos.Line-b.Pos.Line)
	})
}

func exitCode(err error) int {
	var invalid invalidConfig
	var as exitAs
	switch {
	case errors.As(err, &as):
		return as.code
	case err == nil:
		return exitOK
	case errors.As(err, &invalid):
		return exitInvalid
	case errors.Is(err, errUsage), errors.Is(err, emperor.ErrBadQuery):
		return exitUsage
	case errors.Is(err, emperor.ErrNotFound):
		return exitNotFound
	}
	return exitFailed
}
