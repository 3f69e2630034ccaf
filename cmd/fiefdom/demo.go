package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

func demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "demo", Short: "Tell and check the whole story, in namespaces of its own", Args: cobra.NoArgs,
		Long: `Demo runs an emperor with two apps in namespaces of its own, with an internet
beside it, and shows what it promises: each line is checked as it is told. The
machine's own network, sysctls and iptables are not touched. It needs root and
less than half a minute; the exit code is 0 only if all of it held.`,
		Example: "  fiefdom demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.AddCommand(&cobra.Command{
		Use: demoInside, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return tellDemo(cmd.OutOrStdout()) },
	})
	return c
}

// demoInside is the word that makes our binary the first process of the demo's
// world.
const demoInside = "inside"

// runDemo makes the world, which is a clone of ours in fresh namespaces, and
// waits for its end. As the clone is pid 1 there, nothing in it outlives it.
func runDemo(out, errs io.Writer) error {
	if err := demoNeeds(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "demo", demoInside)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = out, errs
	// A session of its own: Ctrl-C reaches us alone. The end of its input tells
	// it to clean up, however we end.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
	}
	remove, err := enterDemoCgroup(cmd.SysProcAttr)
	if err != nil {
		return err
	}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, remove())
	}
	cmd.Cancel = alive.Close
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	if cerr := remove(); cerr != nil {
		return errors.Join(err, cerr)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that the demo made is gone")
	}
	if _, failed := errors.AsType[*exec.ExitError](err); failed && cmd.ProcessState.ExitCode() == exitFailed {
		return errSaid
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// enterDemoCgroup has the world be born in a cgroup of its own, below ours. The
// function that it returns ends and removes that.
func enterDemoCgroup(attr *syscall.SysProcAttr) (remove func() error, err error) {
	own, err := vassal.OwnCgroup()
	if err != nil {
		return func() error { return nil }, nil //nolint:nilerr // it works without; doctor says what that costs
	}
	c, err := own.Make(fmt.Sprintf("fiefdom-demo-%d", os.Getpid()))
	if err != nil {
		return func() error { return nil }, nil //nolint:nilerr // as above
	}
	dir, err := c.Open()
	if err != nil {
		return nil, err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), leftoverTime)
		defer cancel()
		return errors.Join(dir.Close(), c.Remove(ctx))
	}, nil
}

// demoApp is the program of the example's vassals.
const demoApp = "/usr/bin/python3"

// demoNeeds says what is missing here, and how to get it.
func demoNeeds() error {
	checks := []check{
		{"user", checkUser},
		{"namespaces", checkNamespaces},
		{"tun", checkTun},
		{"iptables", func() finding { return checkIPTables("iptables", levelFail) }},
		{"python3", func() finding {
			if _, err := os.Stat(demoApp); err != nil {
				return fail("apt install python3", "%v; the example's apps need it", err)
			}
			return fine("")
		}},
	}
	var errs []error
	for _, f := range examine(checks) {
		if f.Level == levelFail {
			errs = append(errs, fmt.Errorf("%s: %s\nfix: %s", f.Name, f.Detail, f.Fix))
		}
		if len(errs) > 0 && f.Name == "user" {
			break // whatever else fails is for want of root
		}
	}
	return errors.Join(errs...)
}
