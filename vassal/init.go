package vassal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitStage is the word on the command line that makes our binary the init
// stage.
const InitStage = "init-stage"

// handshakeFD is the init stage's descriptor beside 0, 1 and 2.
const handshakeFD = 3

// Init is the init stage. It returns only when it failed, after saying so to
// the emperor, or as a reaper with the app's exit code. The caller must have
// locked the main thread (runtime.LockOSThread in an init function): exec
// takes this thread's credentials along.
func Init() int {
	unix.CloseOnExec(handshakeFD)
	unix.CloseOnExec(channelFD) // if there is one; hooks are not the vassal
	unix.CloseOnExec(settingsFD)
	defaultSignals()
	p := &pipe{os.NewFile(handshakeFD, "handshake")}
	var plan Plan
	if _, err := p.receive(&plan); err != nil {
		return 1 // the emperor is gone; nobody is there to tell
	}
	code, err := plan.run(p)
	if err != nil {
		_ = p.send(word{Error: err.Error()})
		return 1
	}
	return code
}

func (plan *Plan) run(p *pipe) (int, error) {
	ctx := context.Background()
	// Who is in the jail, or a hook with the app's rights, sees us with ours half
	// given away: our other threads have them all. He may look into nobody who is
	// not dumpable (ptrace(2)), whatever his uid is; exec ends that, and a reaper stays so.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("hide from the jail: %w", err)
	}
	if plan.Inside {
		return plan.inside(ctx, p)
	}
	if plan.Joined {
		return plan.joined(ctx, p)
	}
	if plan.Users != nil && !plan.Reaper {
		unix.CloseOnExec(plan.passFD())
	}
	if err := plan.privateMounts(); err != nil {
		return 1, err
	}
	if plan.Reaper {
		if err := plan.setnsPIDs(); err != nil {
			return 1, err
		}
		return plan.reap(p)
	}
	if err := plan.setns(); err != nil {
		return 1, err
	}
	if err := plan.prepare(ctx, p); err != nil {
		return 1, err
	}
	if plan.Users != nil {
		if err := plan.cage(); err != nil {
			return 1, err
		}
		return 0, plan.passOn(p)
	}
	return plan.employ(ctx, p)
}

// employ becomes the app, if there is one.
func (plan *Plan) employ(ctx context.Context, p *pipe) (int, error) {
	if len(plan.Args) == 0 {
		if err := plan.settle(ctx); err != nil {
			return 1, err
		}
		return 0, plan.settled(p)
	}
	return 1, plan.become(ctx, p)
}

// prepare is the part as root: everything before the registration.
func (plan *Plan) prepare(ctx context.Context, p *pipe) error {
	if err := plan.findLog(p); err != nil {
		return fmt.Errorf("logto %s: %w", plan.LogTo, err)
	}
	if err := plan.noteMounts(); err != nil {
		return err
	}
	plan.runStartHook(ctx, false)
	if err := plan.environment(); err != nil {
		return err
	}
	for _, step := range []func() error{
		plan.bound,
		plan.phases(ctx, AsVassal, AsAsap, PreJail),
		plan.joinCgroups,
		plan.ownNames,
		plan.mapPlaces,
		plan.lookOutside,
		plan.enterRoot,
		plan.phases(ctx, InJail, PostJail),
		plan.changeRoot,
		plan.phases(ctx, AsRoot),
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return waitForGo(p)
}

// environment is that of the hooks and the app.
func (plan *Plan) environment() error {
	if plan.CleanEnv {
		os.Clearenv()
	}
	if err := clearProtocolEnv(); err != nil {
		return err
	}
	for _, e := range slices.Concat(plan.HostEnv, plan.Env) {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("env %s: %w", name, err)
		}
	}
	return nil
}

// phases runs the hooks of some phases, one after the other.
func (plan *Plan) phases(ctx context.Context, all ...Phase) func() error {
	return func() error {
		for _, ph := range all {
			if err := RunHooks(ctx, PhaseOf(plan.Hooks, ph), os.Stdout); err != nil {
				return err
			}
		}
		return nil
	}
}

func waitForGo(p *pipe) error {
	if err := p.send(word{Waiting: true, Env: os.Environ()}); err != nil {
		return err
	}
	return p.awaitAnswer()
}

// awaitAnswer waits for the emperor's goAhead.
func (p *pipe) awaitAnswer() error {
	var answer goAhead
	if _, err := p.receive(&answer); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the emperor went away")
		}
		return err
	}
	return nil
}

// findLog opens the log's folder before anything changes what the path means,
// and sends it up: the emperor opens and writes the log. Under tyrant only the
// owner's rights count.
func (plan *Plan) findLog(p *pipe) error {
	if plan.LogTo == "" {
		return nil
	}
	if plan.LogUID > 0 {
		_, gid := plan.OnDisk()
		if err := seeFilesAs(plan.LogUID, gid); err != nil {
			return err
		}
		defer func() { _ = seeFilesAs(0, 0) }()
	}
	folder, err := plan.logFolder()
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := p.send(word{Log: true}, int(folder.Fd())); err != nil {
		return err
	}
	return p.awaitAnswer() // no line may be on its way before the emperor has the file
}

// seeFilesAs makes this thread, and no other, use files with a user's rights only,
// those of the emperor's groups gone too. setfsuid(2) does not say that it failed,
// so it is asked afterwards.
func seeFilesAs(uid, gid int) error {
	if err := unix.Setgroups(nil); err != nil { // the function of package syscall is for all threads
		return fmt.Errorf("groups: %w", err)
	}
	const ask = -1
	_, _ = unix.SetfsgidRetGid(gid)
	_, _ = unix.SetfsuidRetUid(uid)
	is, _ := unix.SetfsuidRetUid(ask)
	group, _ := unix.SetfsgidRetGid(ask)
	if is != uid || group != gid {
		return fmt.Errorf("become %d:%d for files: %w", uid, gid, unix.EPERM)
	}
	return nil
}

// privateMounts cuts the mount namespace off the host's: what happens here
// stays here, what the host unmounts is not pinned.
func (plan *Plan) privateMounts() error {
	if !plan.Mounts {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if plan.Bounded {
		// Programs with rights of their own cannot use them here, and the kernel
		// refuses to start those whose file capabilities are beyond the bounding
		// set (Debian's ping). Without suid they start as ordinary programs.
		err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID})
		if err != nil && !errors.Is(err, unix.ENOSYS) { // before Linux 5.12
			return fmt.Errorf("private mounts without suid: %w", err)
		}
	}
	if plan.Proc {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("private /proc: %w", err)
		}
	}
	return plan.privateFiles()
}

// privateFiles are the vassal's own in place of the host's, by path.
func (plan *Plan) privateFiles() error {
	for _, f := range []struct{ own, path string }{{plan.Resolv, resolvConf}, {plan.Hosts, hostsFile}} {
		if f.own == "" {
			continue
		}
		err := unix.Mount(f.own, f.path, "", unix.MS_BIND, "")
		if errors.Is(err, unix.ENOENT) {
			// A mount needs a file to lie on, and the host's /etc is not ours.
			fmt.Printf("no %s: the host has no such file to put the vassal's in place of\n", f.path)
			continue
		}
		if err != nil {
			return fmt.Errorf("private %s: %w", f.path, err)
		}
	}
	return nil
}

// The files about names that a vassal has of its own.
const (
	resolvConf = "/etc/resolv.conf"
	hostsFile  = "/etc/hosts"
)

// settle drops what the app must not have. Hooks as-user are confined as the app
// is.
func (plan *Plan) settle(ctx context.Context) error {
	for _, step := range []func() error{plan.cage, plan.ceilings, plan.confine, plan.restrict} {
		if err := step(); err != nil {
			return err
		}
	}
	plan.runStartHook(ctx, true)
	if err := RunHooks(ctx, PhaseOf(plan.Hooks, AsUser), os.Stdout); err != nil {
		return err
	}
	if plan.Chdir != "" {
		if err := os.Chdir(plan.Chdir); err != nil {
			return mayNot(err)
		}
	}
	if plan.Umask >= 0 {
		unix.Umask(plan.Umask)
	}
	return nil
}

// become settles and is the app from then on.
func (plan *Plan) become(ctx context.Context, p *pipe) error {
	if err := plan.settle(ctx); err != nil {
		return err
	}
	if err := plan.writePidfile(); err != nil {
		return err
	}
	if err := closeOnExecAbove(2); err != nil {
		return err
	}
	if plan.Protocol {
		if err := giveChannel(); err != nil {
			return err
		}
	}
	args, err := plan.giveSettings(p)
	if err != nil {
		return err
	}
	if err := plan.Limits.apply(); err != nil {
		return err
	}
	programs := plan.Programs
	if len(programs) == 0 {
		programs = plan.Args[:1]
	}
	var errs []error
	for _, program := range programs {
		errs = append(errs, execute(program, args[1:]))
	}
	return plan.refused(errors.Join(errs...))
}

// execute becomes a program; it returns only if it cannot.
func execute(program string, args []string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return noProgram(program, err)
	}
	err = syscall.Exec(path, append([]string{program}, args...), os.Environ())
	if errors.Is(err, syscall.ENOENT) {
		err = fmt.Errorf("%w (or the interpreter in its first line)", err)
	}
	return fmt.Errorf("exec %s: %w", path, err)
}

// closeOnExecAbove marks every descriptor above last: whatever a library
// opened, the app must not see it.
func closeOnExecAbove(last int) error {
	err := unix.CloseRange(uint(last+1), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return nil // before 5.11: everything that Go opens is close-on-exec already
	}
	if err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}
