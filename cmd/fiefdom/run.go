package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/internal/vault"
	"fiefdom/tuntap/control"
	"fiefdom/vassal"
)

func runCommand() *cobra.Command {
	format := "text"
	c := &cobra.Command{
		Use: "run FILE", Short: "Run an emperor", Args: cobra.ExactArgs(1),
		Long: `Run starts the networks and the vassals that an emperor's ini describes, and
keeps them running until TERM, INT or QUIT. HUP takes the program that was installed
meanwhile, or a changed FILE (see fiefdom upgrade), else it reads all inis again; USR1
logs how they are, WINCH looks for changed inis at once, URG ends all back-offs.`,
		Example: "  fiefdom run /etc/fiefdom/emperor.ini",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("%w: --log-format %q; want text or json", errUsage, format)
			}
			return runEmperor(cmd.Context(), args[0], os.Stderr, format)
		},
	}
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}

func newLog(w io.Writer, format string) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// runEmperor joins the packages: everything that they need of each other goes
// through here. Above the lock it only reads and checks; below it the machine
// is changed, and what is made is removed in the opposite order.
func runEmperor(parent context.Context, file string, out io.Writer, format string) error {
	if parent == nil {
		parent = context.Background()
	}
	// What a shell or a service manager left open is for none of the emperor's children.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) { // Linux 5.11
		return fmt.Errorf("keep descriptors from children: %w", err)
	}
	if err := ownURG(); err != nil {
		return fmt.Errorf("begin anew for SIGURG's sake: %w", err)
	}
	// Early, for there may be vassals whose emperor this process was before an upgrade.
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	orders, disobey := takeOrders()
	defer disobey()
	// A closed terminal or pipe costs log lines, not the emperor.
	signal.Ignore(syscall.SIGPIPE)
	// The modes of what is made, and vassals' own umask, do not depend on the shell.
	syscall.Umask(0o022)
	lines := newEmperorLog(out)
	defer lines.close()
	log := newLog(lines, format)
	program, err := findProgram(file)
	if err != nil {
		return err
	}
	reapInherited()
	manager := takeNotifier(log)
	l, err := loadEmperor(file)
	if err != nil {
		return err
	}
	program.reads(l.files...)
	for _, w := range l.warnings {
		log.Warn(w.Error())
	}
	if os.Geteuid() != 0 {
		return errors.New("an emperor makes namespaces and devices: run it as root")
	}
	instance, err := emperor.Lock(l.config)
	if err != nil {
		return err
	}
	// gofail: var instanceLocked struct{}
	if err := lines.to(l.config, instance.Path(emperor.LogPipe)); err != nil {
		return errors.Join(err, instance.Unlock())
	}
	r := &runner{loaded: l, instance: instance, log: log, out: lines, orders: orders, manager: manager, program: program, stopping: ctx.Done()}
	if r.syslog, err = lines.toSyslog(l.config); err != nil {
		return errors.Join(err, instance.Unlock())
	}
	journal := instance.OpenJournal(log)
	defer journal.Close()
	// gofail: var journalOpened struct{}
	r.log = slog.New(journal.Handler(log.Handler()))
	r.journal = journal
	r.keeper = r.newKeeper()
	r.newNames()
	err = r.run(ctx)
	manager.end()
	if r.leaves {
		return errors.Join(err, instance.Leave())
	}
	return errors.Join(err, instance.Unlock())
}

// runner is one life of an emperor, under its lock.
type runner struct {
	*loaded
	instance *emperor.Instance
	log      *slog.Logger
	journal  *emperor.Journal
	out      *emperorLog
	orders   chan os.Signal
	manager  *notifier // of services
	program  program
	syslog   func(vassal string) io.Writer

	host         *nat.Host     // nil: there is none, for
	hostErr      error         // this
	masquerading []nat.Network // the routers'
	bridges      *kernelBridges

	emperor  *emperor.Emperor
	keeper   *control.Keeper
	names    names
	vault    *vault.Vault    // nil: nobody is to be adopted
	ran      bool            // it has come to run: what there is is its own
	stopping <-chan struct{} // closed by the signals that end it
	leaves   bool            // what was found is for the next emperor: this one does not come to run
	sockets  []string        // files where it listens because its ini says so, those of networks aside
	undo     []func() error
}

func (r *runner) run(ctx context.Context) (err error) {
	defer func() { err = r.finish(ctx, err) }()
	if err := r.introduce(); err != nil {
		return err
	}
	orphans, err := r.inherit(ctx)
	if err != nil {
		return err
	}
	cgroup, controllers, err := r.makeGroups()
	if err != nil {
		return err
	}
	leases, err := r.instance.OpenLeases()
	if err != nil {
		return err
	}
	e := &emperor.Emperor{
		Config: r.config, Instance: r.instance, Log: r.log, Output: r.out.vassals, Networks: r.vassalNetworks(), Leases: leases, Cgroup: cgroup, Controllers: controllers,
		Journal: r.journal, Version: versionText(), Upgrade: r.upgrade,
	}
	if len(r.networks) > 0 {
		e.RouterUID, _ = routerUID()
	}
	e.ResponderUID = responderUID
	r.emperor = e
	r.newKernelBridges()
	if err := r.makeVault(cgroup); err != nil {
		return err
	}
	if err := e.LoadRules(); err != nil {
		return err
	}
	// gofail: var vaultReady struct{}
	e.Adopt(orphans)
	r.manager.begin(ctx, e.Pulse, func() bool { return answers(r.config.Runtime) })
	bridges, err := r.makeBridges(cgroup)
	if err != nil {
		return err
	}
	e.Bridge, e.BridgeUID, e.Syslog = bridges, bridgeUID, r.syslog
	if err := r.hooks(ctx, vassal.AsAsap, vassal.PreJail); err != nil {
		return err
	}
	networks, err := r.makeNetworks()
	if err != nil {
		return err
	}
	// gofail: var networksMade struct{}
	if err := r.hooks(ctx, vassal.InJail, vassal.PostJail, vassal.AsRoot, vassal.AsUser, vassal.EmperorStart); err != nil {
		return err
	}
	r.later(r.hooksAtExit)
	host, err := r.setUpHost()
	if err != nil {
		return err
	}
	// gofail: var hostSetUp struct{}
	return r.serve(ctx, networks, host, cgroup)
}

// introduce tells others who this process is.
func (r *runner) introduce() error {
	if err := r.writePIDFile(); err != nil {
		return err
	}
	if name := r.config.ProcName; name != "" {
		if err := nameProcess(name); err != nil {
			r.log.Warn("emperor-procname", "err", err)
		}
	}
	return nil
}

// makeGroups makes the instance's cgroup, and what its vassals are limited by.
func (r *runner) makeGroups() (vassal.Cgroup, *vassal.Controllers, error) {
	cgroup, err := r.instance.MakeCgroup()
	if err != nil {
		r.log.Warn("no cgroup of its own; children are found by their namespaces", "err", err)
	}
	controllers, err := r.instance.MakeControllers(cgroup)
	if err != nil {
		return "", nil, err
	}
	r.later(func() error {
		if r.leaves {
			return nil
		}
		return controllers.Close()
	})
	if cgroup != "" {
		r.later(func() error {
			if r.leaves {
				return nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), leftoverTime)
			defer cancel()
			return cgroup.Remove(ctx)
		})
	}
	return cgroup, controllers, nil
}

// hooks runs those of some phases of the emperor's own ini. The emperor stays
// root, so those as-user are root's too.
func (r *runner) hooks(ctx context.Context, phases ...vassal.Phase) error {
	for _, ph := range phases {
		if err := vassal.RunHooks(ctx, vassal.PhaseOf(r.config.Hooks, ph), r.out); err != nil {
			return err
		}
	}
	return nil
}

// exitHookTime bounds the hooks of the emperor's end.
const exitHookTime = 30 * time.Second

// hooksAtExit runs the last hooks. As in uWSGI a failure changes nothing.
func (r *runner) hooksAtExit() error {
	ctx, cancel := context.WithTimeout(context.Background(), exitHookTime)
	defer cancel()
	if err := r.hooks(ctx, vassal.AtExit); err != nil {
		r.log.Warn("hook", "err", err)
	}
	return nil
}

// routerUID is the router's: the user fiefdom's, else one that nobody has.
func routerUID() (uid, gid int) {
	const fallback = 65519
	u, err := user.Lookup("fiefdom")
	if err != nil {
		return fallback, fallback
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if uerr != nil || gerr != nil || uid == 0 {
		return fallback, fallback
	}
	return uid, gid
}
