package vassal

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Beside is the plan of a command that runs in the generation's jail: with the
// app's user, groups, limits and environment, and with no capability, whatever
// the app has.
func (g *Generation) Beside(args []string) Plan {
	p := g.launch.Plan
	p.Args, p.Programs, p.Env, p.Chdir, p.Pidfile = args, nil, nil, "", ""
	p.Reaper, p.Nest, p.Protocol, p.Settings = false, false, false, SettingsNone
	p.Caps, p.KeepCaps, p.Bounded = nil, false, true
	return p
}

// Enter starts a process beside the generation's app, or in a generation
// without one. It ends with the generation at the latest; whoever started it
// must call its Wait.
func (g *Generation) Enter(ctx context.Context, l Launch) (*Generation, error) {
	if g.ground != nil {
		return g.Join(ctx, l)
	}
	base, err := g.invite()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("enter the jail: %w", err), l.Cgroup.discard())
	}
	guest, err := g.join(ctx, base, l)
	if err != nil {
		g.seeOff(base)
		return nil, err
	}
	return guest, nil
}

// invite holds what the app is in. It must be what the emperor made: a place
// that the app made by itself, where it may be root, is none to enter with
// rights. The way to such a place is a user namespace, from which nobody comes
// back; so it is looked for last.
func (g *Generation) invite() (*ground, error) {
	if err := g.sameUsers(); err != nil {
		return nil, err
	}
	base, err := layGround(g.PID, g.env, g.launch.Plan.Users)
	if err != nil {
		return nil, err
	}
	if err := g.sameUsers(); err != nil {
		return nil, errors.Join(err, base.close())
	}
	base.left, base.budget = func() { g.seeOff(base) }, g.launch.Budget
	g.mu.Lock()
	defer g.mu.Unlock()
	// What was opened by its pid was the app's if the pid is its own now.
	if g.shut || g.over || g.waited || !g.holdsPID() {
		return nil, errors.Join(errors.New("the app has ended"), base.close())
	}
	if g.guests == nil {
		g.guests = map[*ground]bool{}
	}
	g.guests[base] = true
	return base, nil
}

// sameUsers says whether the app is in the user namespace that it was put into.
func (g *Generation) sameUsers() error {
	if users := g.launch.Plan.Users; users != nil {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", g.PID))
		if errors.Is(err, os.ErrNotExist) {
			return errors.New("the app has ended")
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return users.made(g.PID, f)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", g.PID))
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("the app has ended")
	}
	if err != nil {
		return err
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	if theirs != ours {
		return errors.New("the app is in a user namespace of its own, which only its own processes can be in")
	}
	return nil
}

// holdsPID says whether the app's pid is still its own: nobody has waited for
// it. mu is held.
func (g *Generation) holdsPID() bool {
	switch {
	case g.app != nil:
		return unix.PidfdSendSignal(int(g.app.Fd()), 0, nil, 0) == nil
	case g.process != nil:
		return true // it is ours to wait for, and has not been
	}
	return g.signalOrphan(0, 0) == nil
}

// seeOff gives up what a guest joined.
func (g *Generation) seeOff(base *ground) {
	g.mu.Lock()
	known := g.guests[base]
	delete(g.guests, base)
	g.mu.Unlock()
	if known {
		_ = base.close() // descriptors of places, which have nothing to say
	}
}

// endGuests kills the processes beside the app, and waits until all have been
// waited for.
func (g *Generation) endGuests() {
	g.mu.Lock()
	g.shut = true
	all := make([]*ground, 0, len(g.guests))
	for base := range g.guests {
		all = append(all, base)
	}
	g.mu.Unlock()
	for _, base := range all {
		base.end()
		base.inFlight.Wait()
	}
}
