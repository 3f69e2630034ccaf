package vassal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/internal/seccomp"
)

// restrict is the last of the confinement, with the app's user and without
// capabilities: what files it may use (landlock(7)), and which system calls.
func (plan *Plan) restrict() error {
	k := plan.Confined
	if k == nil {
		return nil
	}
	if err := k.files(plan.ownRoot()); err != nil {
		return fmt.Errorf("confine = %s: landlock: %w", k.Level, err)
	}
	if k.strict() {
		// What is writable is never executed. Compilers that run in the app, such
		// as those of JavaScript, cannot work.
		if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
			return fmt.Errorf("confine = strict: memory that is never both writable and executable: %w (Linux 6.3)", err)
		}
	}
	return seccomp.Install(k.Filter)
}

// ownNames gives the vassal its name as its hostname, and hides the cgroups
// above its own.
func (plan *Plan) ownNames() error {
	if plan.Confined == nil {
		return nil
	}
	// No new cgroup namespace (Linux 4.6, or a user namespace without the right)
	// leaves a name to be seen, and nothing to be done with it.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil && plan.Confined.strict() {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	if plan.Isolation.Hostname != "" {
		return nil
	}
	name := plan.Name
	if len(name) > maxHostname {
		name = name[:maxHostname]
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("hostname %s: %w", name, err)
	}
	return nil
}

// What a process of a confined app may have at most; its ini may say otherwise.
const (
	maxOpenFiles = 65536
	maxLocked    = 8 << 20 // bytes of memory that is never swapped
	noCore       = 1       // of 0 the kernel still gives a program of the host's the whole (core(5))
)

// ceilings are limits of the app's processes beside those of the ini.
func (plan *Plan) ceilings() error {
	if plan.Confined == nil {
		return nil
	}
	for _, l := range []struct {
		which int
		most  uint64
	}{{unix.RLIMIT_CORE, noCore}, {unix.RLIMIT_NOFILE, maxOpenFiles}, {unix.RLIMIT_MEMLOCK, maxLocked}} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.which, &now); err != nil {
			return err
		}
		if plan.Limits.Files > 0 && l.which == unix.RLIMIT_NOFILE {
			continue
		}
		most := min(now.Max, l.most)
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limits of a confined app: %w", err)
		}
	}
	return nil
}

// refused adds to an error of an exec what the confinement may have to do with it.
func (plan *Plan) refused(err error) error {
	const advice = "name its folder by chdir, or by bind = FOLDER:ro"
	unseen := func(program string) bool {
		return filepath.IsAbs(program) && !plan.ownRoot() && !plan.Confined.Sees(program)
	}
	switch {
	case plan.Confined == nil:
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (it may not be executed under confine = %s: %s)", err, plan.Confined.Level, advice)
	case errors.Is(err, unix.ENOENT) && slices.ContainsFunc(append(plan.Programs, plan.Args[0]), unseen):
		return fmt.Errorf("%w (if the host has it: under confine = %s the app sees the system, and what its ini names; %s)", err, plan.Confined.Level, advice)
	}
	return err
}
