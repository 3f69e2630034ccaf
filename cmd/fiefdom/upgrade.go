package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/pidfd"
)

// Bounds of an upgrade.
const (
	trialTime   = 10 * time.Second // that a new program may take to say its version
	upgradeTime = time.Minute      // until the next emperor answers
	childGrace  = 100 * time.Millisecond
)

func upgradeCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "upgrade", Short: "Have the emperor become the program that is installed now",
		Long: `Upgrade replaces the program of a running emperor by the one that is installed
now at the same path. Vassals, the router and all connections go on; the inis are
read again. A program that does not start, or an emperor's ini with errors, changes
nothing. (systemctl reload does the same when the program or the emperor's ini has
changed.)`,
		Example: "  fiefdom upgrade",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), upgradeTime)
			defer cancel()
			before, after, err := client.Upgrade(ctx)
			if err != nil {
				return fmt.Errorf("upgrade: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "emperor %s runs %s, with pid %d; it was %s\n", after.Instance, after.Version, after.PID, before.Version)
			return nil
		},
	}
}

// program is the emperor's own, and by what it can be run again.
type program struct {
	path string   // where it was when the emperor began
	file string   // the emperor's ini
	env  []string // that the emperor began with

	read map[string]fs.FileInfo // the ini and what it includes, as they were read
}

func findProgram(file string) (program, error) {
	path, err := os.Executable()
	p := program{path: path, file: file, env: os.Environ(), read: map[string]fs.FileInfo{}}
	p.reads(file) // before it is: a change meanwhile counts
	return p, err
}

// reads notes how files are that the emperor's ini is made of. What is no file,
// such as the output of a command, cannot be seen to change.
func (p *program) reads(files ...string) {
	for _, file := range files {
		if now, err := os.Stat(file); err == nil && p.read[file] == nil {
			p.read[file] = now
		}
	}
}

// changed says whether another program is at the path by now, or another text in
// the emperor's ini or what it includes.
func (p *program) changed() bool {
	for file, was := range p.read {
		now, err := os.Stat(file)
		if err == nil && (!os.SameFile(now, was) || now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime())) {
			return true
		}
	}
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	there, err := os.Stat(p.path)
	return err == nil && !os.SameFile(ours, there)
}

// try says why the program at the path cannot take the emperor's place.
func (p *program) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	trial := exec.CommandContext(ctx, p.path, "version")
	trial.Args[0] = os.Args[0]
	if out, err := trial.CombinedOutput(); err != nil {
		return fmt.Errorf("%s version: %w %s", p.path, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// become replaces this process by the program at the path, unless stopping says
// otherwise; last is done right before. No child is just being cloned then: until
// its exec it would have all our descriptors, the lock too.
func (p *program) become(stopping <-chan struct{}, last func()) error {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	select {
	case <-stopping:
		return errors.New("the emperor is stopping")
	default:
		last()
		return syscall.Exec(p.path, os.Args, p.env)
	}
}

// takes says why an emperor with the ini as it is now could not go on with what
// this one has; if he can, what the ini says.
func (r *runner) takes() (*emperor.Config, error) {
	l, err := loadEmperor(r.program.file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.program.file, err)
	}
	was, now := r.config, l.config
	switch {
	case now.Instance != was.Instance || now.Runtime != was.Runtime || now.State != was.State:
		return nil, fmt.Errorf("%s: instance, runtime-dir and state-dir say where everything is that runs; another one counts from a restart on", r.program.file)
	case now.Orphans == emperor.KillOrphans:
		return nil, fmt.Errorf("%s: emperor-orphans = kill would end all vassals; it counts from a restart on", r.program.file)
	}
	return now, clashes(l.networks)
}

// upgrade says whether the program at its path can take the emperor's place, and
// returns what has it do so.
func (r *runner) upgrade(ctx context.Context) (become func(), err error) {
	if r.vault == nil {
		return nil, errors.New("the vassals would end with this emperor (emperor-orphans = kill)")
	}
	next, err := r.takes()
	if err != nil {
		return nil, err
	}
	if err := r.program.try(ctx); err != nil {
		return nil, err
	}
	return func() {
		r.log.Info("upgrading", "program", r.program.path)
		err := r.emperor.Replace(func() error {
			r.out.flush()
			return r.become(next)
		})
		r.log.Error("not upgraded; going on", "err", err)
	}, nil
}

// become is the exec of an upgrade. A TERM that came before is obeyed instead. One
// that comes after it, before the new program's first words, ends the emperor and
// nobody else: no mask would have it wait, since Go's runtime takes every
// signal that ends a process out of the mask that it began with.
func (r *runner) become(next *emperor.Config) error {
	defer ignoreOrders()()
	gone := ""
	err := r.program.become(r.stopping, func() { gone = r.removeForgone(next) })
	return without(gone, err)
}

// reapInherited waits for the children that an emperor before, whose process this
// was, has left: nobody else can, and they would stay as zombies. How an adopted
// process ended is asked from the kernel before (internal/pidfd).
func reapInherited() {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for text := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(text); err == nil {
				go reapChild(pid) // ends with the child, which may outlive us
			}
		}
	}
}

func reapChild(pid int) {
	child, err := pidfd.Open(pid)
	if err != nil {
		return
	}
	defer child.Close()
	if pidfd.Await(child) != nil {
		return
	}
	time.Sleep(childGrace)
	if raw, err := child.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil) })
	}
}
