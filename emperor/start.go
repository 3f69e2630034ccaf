package emperor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"fiefdom/internal/logfile"
	"fiefdom/vassal"
)

// startSlots bounds how many starts are under way at once: each is a process
// of ours until it becomes the app. One that takes long, in a hook for one,
// gives its slot back after slotTime. Expanders, one for each owner, likewise.
const (
	startSlots  = 16
	expandSlots = 8
	visitSlots  = 16 // commands in jails, and checks by command
	slotTime    = 500 * time.Millisecond
)

// startJob is one start, beside the loop.
type startJob struct {
	e      *Emperor
	name   string
	launch int
	r      *resolved
	jail   *vassal.Jail // kept from before, or made here
	output *output
	door   *door // that becomes the stdin of the app, or of its crew; nil: none
	left   <-chan struct{}
	after  <-chan struct{} // errands of the generation before
	gen    *vassal.Generation
	config *vassal.Config

	notices *appNotices // nil: the app has no socket for them
}

func (s *startJob) run(ctx context.Context) error {
	if s.after != nil {
		select {
		case <-s.after:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	release, err := slot(ctx, s.e.slots)
	if err != nil {
		return err
	}
	defer release()
	give, err := s.e.files.take()
	if err != nil {
		return err
	}
	defer give()
	if s.output == nil {
		o, err := makeOutput(s.name, s.e.Instance.Path(outFolder, safeName(s.name)), s.e.Output)
		if err != nil {
			return err
		}
		if s.e.Vault != nil {
			o.outlive(nil, s.e.Log)
		}
		s.output = o
		go o.read()
	}
	// gofail: var outputOpened struct{}
	if s.jail != nil && s.lost(ctx) {
		if err := s.dropJail(s.jail); err != nil {
			return fmt.Errorf("close the jail whose device was lost: %w", err)
		}
	}
	if err := s.e.makeBridges(s.r.bridges); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	if s.jail != nil { // which an ini may have given other rules
		if err := s.jail.SetRules(s.r.links); err != nil {
			return err
		}
		s.e.keepJail(s.jail)
	}
	if s.jail == nil {
		if s.left != nil {
			<-s.left // bounded: a goodbye has a time limit
		}
		if err := s.makeJail(); err != nil {
			return err
		}
	}
	if err := s.writeHosts(); err != nil {
		return err
	}
	// gofail: var hostsWritten struct{}
	if err := s.e.publish(s.jail, s.r.published, s.r.ports); err != nil {
		return err
	}
	// gofail: var startPublished struct{}
	err = s.start(ctx)
	give()
	s.hear()
	if err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

// lost says whether the jail that was kept lost its device. A router that has
// just ended looks the same until the next one has the device: that is waited
// for, as long as for a vassal that runs.
func (s *startJob) lost(ctx context.Context) bool {
	for range lostChecks {
		if !s.jail.Lost() {
			return false
		}
		select {
		case <-time.After(lostInterval):
		case <-ctx.Done():
			return false
		}
	}
	return s.jail.Lost()
}

// slot waits for a place among the starts, or the expanders.
func slot(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	free := make(chan struct{}, 1)
	free <- struct{}{}
	give := func() {
		select {
		case <-free:
			<-slots
		default:
		}
	}
	timer := time.AfterFunc(slotTime, give)
	return func() { timer.Stop(); give() }, nil
}

func (s *startJob) newJail() (*vassal.Jail, error) {
	if s.r.lone {
		return vassal.NewLoneJail(s.name)
	}
	return vassal.NewJail(s.name, s.r.net, s.r.links)
}

func (s *startJob) makeJail() error {
	jail, err := s.newJail()
	if err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	// Known before its first packet: the router's word about it finds it.
	if jail.Inode != 0 {
		s.e.jails.Store(jail.Inode, jail)
		// gofail: var jailMade struct{}
		s.e.keepJail(jail)
	}
	s.jail = jail
	// gofail: var jailKept struct{}
	if err = jail.Plug(s.e.plugger()); err == nil {
		err = jail.HandOver()
	}
	if err == nil {
		err = jail.Bridge(s.e.Bridge, func() { s.e.keepJail(jail) }, func(why string) { s.e.Lost(s.name, why) })
		if err != nil {
			err = fmt.Errorf("%w (the sockets of this emperor's own routers are: %s)", err, s.e.sockets())
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("jail: %w", err), s.dropJail(jail))
	}
	return nil
}

func (s *startJob) dropJail(jail *vassal.Jail) error {
	s.e.letGo(jail)
	s.jail = nil
	return errors.Join(s.e.unpublish(jail), jail.Close())
}

func (s *startJob) start(ctx context.Context) error {
	l := vassal.Launch{Plan: s.r.plan, Dir: s.r.dir, Document: s.r.document, Namespaces: s.r.namespaces}
	l.Log = func(f *logfile.File) { s.output.setLogs(s.e, f, &s.r.plan) }
	if l.Plan.LogTo == "" {
		l.Log(nil)
	}
	if err := s.notified(&l); err != nil {
		return err
	}
	above, err := l.Plan.Isolation.Above()
	if err != nil {
		return err
	}
	if s.door != nil && len(l.Plan.Args) > 0 { // else it is for who joins
		if l.Stdin, err = s.door.stdin(); err != nil {
			return err
		}
		defer l.Stdin.Close()
	}
	if l.Output, err = s.output.writer(s.r.plan.UID); err != nil {
		return err
	}
	defer l.Output.Close()
	name := generationName(s.name, s.launch)
	if above == "" {
		above = s.e.Cgroup
	} else if err := s.e.Instance.recordCgroup(s.name, vassal.Cgroup(filepath.Join(string(above), name))); err != nil {
		return err
	}
	if above != "" { // the last: from here on it is the start's to remove
		if l.Cgroup, err = above.Make(name); err != nil {
			return err
		}
	}
	// gofail: var generationCgroupMade struct{}
	if s.e.Controllers != nil {
		if l.Budget, err = s.e.Controllers.Budget(name, l.Cgroup, s.r.resources, func(killed uint64) { s.e.outOfMemory(s.name, killed) }); err != nil {
			if l.Cgroup != "" {
				err = errors.Join(err, l.Cgroup.Remove(ctx))
			}
			return err
		}
	}
	// gofail: var limitsInForce struct{}
	record := s.e.recorder(l.Cgroup, s.name)
	l.Cloned = record
	if s.gen, err = s.jail.Start(ctx, l); err != nil {
		return errors.Join(err, s.e.Instance.forgetApp(s.name))
	}
	// gofail: var appStarted struct{}
	if s.gen.PID != 0 {
		record(s.gen.PID)
	} else if err := s.e.Instance.forgetApp(s.name); err != nil { // nobody is there yet: who joins is recorded
		s.e.Log.Warn("record the app", "process", s.name, "err", err)
	}
	return nil
}

// recorder writes down who a process is, from before it does anything, where the
// next emperor would not find it by its cgroup.
func (e *Emperor) recorder(generation vassal.Cgroup, name string) func(pid int) {
	if e.records(generation) {
		return func(int) {}
	}
	return func(pid int) {
		if err := e.Instance.recordApp(name, pid); err != nil {
			e.Log.Warn("record the app", "process", name, "err", err)
		}
	}
}

// records says whether the next emperor finds what runs in a generation's
// cgroup by the instance's own; else its processes have to be recorded.
func (e *Emperor) records(generation vassal.Cgroup) bool {
	return generation != "" && filepath.Dir(string(generation)) == string(e.Cgroup)
}

// generationName is what the cgroups of a vassal's launch are called.
func generationName(vassal string, launch int) string {
	return safeName(vassal) + "." + strconv.Itoa(launch)
}
