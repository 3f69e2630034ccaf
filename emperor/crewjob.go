package emperor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// crewJob is one start of a crew's process, beside the loop.
type crewJob struct {
	e        *Emperor
	vassal   string
	crew     *crew
	spec     *vassal.Attached // nil: the command
	command  []string
	number   int     // of the start
	output   *output // from before, or made here; nil for the command
	above    *output // the vassal's
	followed func(pid int)
}

// id names the run among the instance's: for its cgroup and its record.
func (j *crewJob) id() string {
	name := "command"
	if j.spec != nil {
		name = "+" + j.spec.Name
	}
	return name + "." + strconv.Itoa(j.number)
}

func (j *crewJob) run(ctx context.Context) (*vassal.Generation, error) {
	release, err := slot(ctx, j.e.slots)
	if err != nil {
		return nil, err
	}
	defer release()
	give, err := j.e.files.take()
	if err != nil {
		return nil, err
	}
	defer give()
	base := j.crew.ground.Cgroup()
	l := vassal.Launch{Plan: j.plan(), Group: j.spec != nil}
	if j.spec != nil && j.spec.Smart() {
		if base == "" {
			return nil, errNoTree
		}
		l.Pidfile, l.Patience, l.Followed = j.path(j.spec.Pidfile), j.spec.Freq, j.followed
	}
	if base != "" {
		if l.Cgroup, err = base.Make(safeName(j.id())); err != nil {
			return nil, err
		}
	}
	out := j.above
	if j.spec != nil {
		if j.output == nil {
			if j.output, err = j.e.openCrewOutput(j.vassal, j.spec, j.above); err != nil {
				return nil, err
			}
		}
		out = j.output
	}
	if door := j.crew.door; door != nil && (j.spec == nil || j.spec.Stdin) {
		if l.Stdin, err = door.stdin(); err != nil {
			return nil, err
		}
		defer l.Stdin.Close()
	}
	if l.Output, err = out.writer(l.Plan.UID); err != nil {
		return nil, err
	}
	defer l.Output.Close()
	record := j.e.recorder(base, j.record())
	l.Cloned = record
	gen, err := j.crew.ground.Join(ctx, l)
	if err != nil {
		return nil, errors.Join(err, j.e.Instance.forgetApp(j.record()))
	}
	// gofail: var processJoined struct{}
	record(gen.PID)
	return gen, nil
}

func (e *Emperor) openCrewOutput(name string, spec *vassal.Attached, above *output) (*output, error) {
	return openOutput(spec.Name, e.Instance.Path(outFolder, safeName(name+"/"+spec.Name)), above)
}

// errNoTree is why a daemon that goes into the background cannot be followed.
var errNoTree = errors.New("a daemon that goes into the background is found by its cgroup, and there is no cgroup v2 tree; let it stay in the foreground (attach-daemon, smart-attach-daemon2)")

func (j *crewJob) record() string { return j.vassal + "/" + j.id() }

// plan is what the init stage of the process does: the vassal's, without what
// was done for the whole generation.
func (j *crewJob) plan() vassal.Plan {
	p := j.crew.r.plan
	p.Env, p.HostEnv, p.Chdir, p.Reaper = nil, nil, "", false
	if j.spec == nil {
		p.Args = j.command
		return p
	}
	d := j.spec
	p.Args = []string{"/bin/sh", "-c", d.Command}
	p.Chdir, p.Nest = d.Chdir, d.NewPID
	if d.Daemonize {
		p.Pidfile = d.Pidfile
	}
	otherUser(&p, d)
	return p
}

// path is a path of the process as the jail has it.
func (j *crewJob) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	dir := j.crew.r.dir
	if p := j.crew.r.plan; p.Chroot != "" {
		dir = "/"
	}
	for _, chdir := range []string{j.crew.r.plan.Chdir, j.spec.Chdir} {
		if chdir != "" {
			dir = chdir
		}
	}
	return filepath.Join(dir, name)
}

// checkAttached refuses attached processes that could not be, or not be apart
// from the emperor's own.
func (e *Emperor) checkAttached(r *resolved, c *vassal.Config) *ini.Error {
	for _, d := range c.Attached {
		switch {
		case r.namespaces&unix.CLONE_NEWUSER != 0:
			return &ini.Error{Pos: d.Pos, Message: "a user namespace that is made for the vassal is its first process's alone; " +
				"leave user out of emperor-use-clone and unshare, or give each process an ini of its own"}
		case d.UID != nil && d.UID.ID != 0 && (d.UID.ID == e.RouterUID || d.UID.ID == e.BridgeUID):
			return &ini.Error{Pos: d.Pos, Message: fmt.Sprintf("uid %s is that of the emperor's own processes; choose another", d.UID.Name)}
		}
		if err := strangers(&r.plan, &d); err != nil {
			return &ini.Error{Pos: d.Pos, Message: err.Error()}
		}
	}
	return nil
}
