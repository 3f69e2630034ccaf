package emperor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"fiefdom/vassal"
)

// HookProcess is the word on the command line that makes our binary do hooks
// as-emperor: in a process of their own they change neither the emperor's
// environment nor his folder, and can be ended whatever they wait for.
const HookProcess = "hooks"

// HookMain is that process: it does the hooks that it reads.
func HookMain(in io.Reader, out io.Writer) error {
	var hooks []vassal.Hook
	if err := json.NewDecoder(in).Decode(&hooks); err != nil {
		return fmt.Errorf("hooks: %w; the emperor starts me", err)
	}
	return vassal.RunHooks(context.Background(), vassal.PhaseOf(hooks, vassal.AsEmperor), out)
}

// errands is what the emperor has done for a vassal, one after the other,
// beside the loop. A start waits until those of the generation before are over.
type errands struct {
	pid  int                // of the app that they are told of
	done chan struct{}      // closed when all so far are over; nil: there was none
	end  context.CancelFunc // ends those of the generation that runs
}

// greet does the hooks as-emperor of a generation whose app, or the first of
// its crew, runs. They end with it at the latest.
func (e *Emperor) greet(v *member, pid int) {
	v.errands.pid = pid
	hooks := vassal.PhaseOf(e.Config.Hooks, vassal.AsEmperor)
	if len(hooks) == 0 {
		return
	}
	in, err := json.Marshal(hooks)
	if err != nil {
		e.Log.Error("hooks as-emperor", "err", err)
		return
	}
	ctx, end := context.WithCancel(context.Background())
	v.errands.end = end
	e.send(ctx, v, string(vassal.AsEmperor), func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, vassal.Program)
		cmd.Args = []string{os.Args[0], HookProcess}
		cmd.Stdin = bytes.NewReader(in)
		return cmd
	})
}

// mourn ends what is done for a generation that has ended, and runs
// vassals-stop-hook.
func (e *Emperor) mourn(v *member) {
	if v.errands.end != nil {
		v.errands.end()
		v.errands.end = nil
	}
	hook, file := e.Config.StopHook, v.file.base()
	if hook == "" {
		return
	}
	e.send(context.Background(), v, "vassals-stop-hook", func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, hook, file)
	})
}

// send runs a command for a vassal, after those before it. How it went only
// the log says.
func (e *Emperor) send(ctx context.Context, v *member, what string, command func(context.Context) *exec.Cmd) {
	before, done := v.errands.done, make(chan struct{})
	v.errands.done = done
	log := e.Log.With("vassal", v.name, "hook", what)
	env := append(os.Environ(), "UWSGI_VASSAL_CONFIG="+v.file.base(), "UWSGI_VASSAL_PID="+strconv.Itoa(v.errands.pid),
		"UWSGI_VASSAL_UID="+strconv.Itoa(int(v.file.owner.uid)), "UWSGI_VASSAL_GID="+strconv.Itoa(int(v.file.owner.gid)))
	e.jobs.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		limited, cancel := context.WithTimeout(ctx, vassal.HookTime)
		defer cancel()
		release, err := slot(limited, e.slots)
		if err != nil {
			return // the vassal is gone already
		}
		defer release()
		var said excerpt
		cmd := command(limited)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = e.Config.workDir(v.file.path), env, &said, &said
		err = runBelow(e.Cgroup, "hook", cmd)
		if text := said.text(); text != "" {
			log = log.With("said", text)
		}
		switch {
		case ctx.Err() != nil:
			log.Warn("hook ended with its vassal")
		case limited.Err() != nil:
			log.Warn("hook ended, it took too long", "limit", vassal.HookTime)
		case err != nil:
			log.Warn("hook failed", "err", err)
		default:
			log.Info("hook done")
		}
	})
}

// excerpt keeps the end of what is written to it.
type excerpt struct{ b []byte }

const excerptSize = 2000 // bytes

func (x *excerpt) Write(p []byte) (int, error) {
	x.b = append(x.b, p...)
	if over := len(x.b) - excerptSize; over > 0 {
		x.b = append(x.b[:0], x.b[over:]...)
	}
	return len(p), nil
}

func (x *excerpt) text() string { return strings.TrimSpace(strings.ToValidUTF8(string(x.b), "?")) }
