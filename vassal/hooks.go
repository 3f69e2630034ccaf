package vassal

import (
	"fmt"
	"slices"
	"strings"

	"fiefdom/internal/ini"
)

// Phase is the moment of a hook.
type Phase string

// The phases of a start, in its order. A vassal is born in its jail, so none of
// them sees the host's namespaces where it has its own.
const (
	AsVassal Phase = "as-vassal" // of the emperor's ini, in each vassal, before its own hooks
	AsAsap   Phase = "asap"
	PreJail  Phase = "pre-jail"
	InJail   Phase = "in-jail"   // the root of namespace is entered
	PostJail Phase = "post-jail" // namespaces and devices are there
	AsRoot   Phase = "as-root"   // after chroot and pivot_root, before the app's uid
	AsUser   Phase = "as-user"   // under the app's uid
)

// AtExit is after everything else, and only an emperor has it: nothing of ours
// outlives an app. An app that is a uwsgi has its own.
const AtExit Phase = "as-user-atexit"

// Hook is one action of a phase.
type Hook struct {
	Phase  Phase   `json:"phase"`
	Action string  `json:"action"`
	Args   string  `json:"args,omitempty"`
	Hidden bool    `json:"hidden,omitempty"` // "!": its arguments stay out of the log
	Rank   int     `json:"rank"`             // hook, mount, umount, exec: uWSGI's order within a phase
	Pos    ini.Pos `json:"pos"`
}

func (h Hook) String() string {
	if h.Hidden {
		return h.Action
	}
	return strings.TrimSpace(h.Action + " " + h.Args)
}

// HookOptions are hook-, mount-, umount-, exec- and call- of every phase, of a
// vassal as of the emperor.
var HookOptions = hookOptions(AsAsap, PreJail, InJail, PostJail, AsRoot, AsUser)

func hookOptions(phases ...Phase) []ini.Option[[]Hook] {
	var table []ini.Option[[]Hook]
	for _, ph := range phases {
		table = append(table,
			ini.Option[[]Hook]{
				Name: "hook-" + string(ph), Kind: ini.Action, Repeats: true, Since: "0.1",
				Meaning: "ACTION:ARGUMENTS, done once at " + string(ph), Set: hookSetter(ph, 0, ""),
			},
			ini.Option[[]Hook]{
				Name: "exec-" + string(ph), Kind: ini.Command, Repeats: true, Since: "0.1",
				Meaning: "a command for the shell, run once at " + string(ph), Set: hookSetter(ph, 3, "exec"),
			},
		)
		if ph != AsUser { // a uwsgi that is the app can do that itself
			table = append(table, noCallOption(ph))
		}
		if ph != AsUser && ph != AtExit {
			table = append(table,
				ini.Option[[]Hook]{
					Name: "mount-" + string(ph), Kind: ini.Text, Repeats: true, Since: "0.1",
					Meaning: "TYPE SOURCE TARGET [FLAGS [DATA]], mounted once at " + string(ph), Set: hookSetter(ph, 1, "mount"),
				},
				ini.Option[[]Hook]{
					Name: "umount-" + string(ph), Kind: ini.Text, Repeats: true, Since: "0.1",
					Meaning: "TARGET [FLAGS], unmounted once at " + string(ph), Set: hookSetter(ph, 2, "umount"),
				},
			)
		}
	}
	return table
}

func hookSetter(ph Phase, rank int, action string) func(*[]Hook, ini.Pair) error {
	return func(hooks *[]Hook, p ini.Pair) error {
		h := Hook{Phase: ph, Rank: rank, Action: action, Args: p.Value, Pos: p.Pos}
		if action == "" {
			name, args, ok := strings.Cut(p.Value, ":")
			if !ok {
				return fmt.Errorf("%q: want ACTION:ARGUMENTS", p.Value)
			}
			h.Action, h.Args = strings.TrimSpace(name), args
			if rest, ok := strings.CutPrefix(h.Action, "!"); ok {
				h.Action, h.Hidden = rest, true
			}
		}
		if err := h.checkAction(); err != nil {
			return err
		}
		*hooks = append(*hooks, h)
		return nil
	}
}

func noCallOption(ph Phase) ini.Option[[]Hook] {
	return ini.Option[[]Hook]{
		Name: "call-" + string(ph), Kind: ini.Text, Repeats: true, Since: "0.1", Set: noCall,
		Meaning: "uWSGI's call of a C function; there is none here to call, so it is an error",
	}
}

func noCall(_ *[]Hook, p ini.Pair) error {
	return fmt.Errorf("%s = %s: hooks run outside of any uwsgi, where no C function can be called; write %s = COMMAND", p.Key, p.Value, strings.Replace(p.Key, "call", "exec", 1))
}

// elsewhere are uWSGI's actions that only a running uwsgi can do.
var elsewhere = map[string]string{
	"call": "C functions", "callret": "C functions", "callint": "C functions", "callintret": "C functions", "unix_signal": "C functions",
	"alarm": "alarms", "rpc": "remote procedures", "retryrpc": "remote procedures",
}

func (h Hook) checkAction() error {
	if what, ok := elsewhere[h.Action]; ok {
		return fmt.Errorf("action %s: hooks run outside of any uwsgi, which alone has %s; use exec:COMMAND, or a phase of the app's own uwsgi such as hook-post-app", h.Action, what)
	}
	if _, ok := actions[h.Action]; !ok {
		return fmt.Errorf("unknown action %.100q; want one of %s", h.Action, strings.Join(actionNames(), " "))
	}
	return nil
}

// unrun warns of hooks that only a uwsgi would run, where the app is none.
func (c *Config) unrun(pairs []ini.Pair) ini.Errors {
	if len(c.App) > 0 {
		return nil
	}
	var errs ini.Errors
	for _, p := range pairs {
		kind, phase, _ := strings.Cut(p.Key, "-")
		if class(p.Key) == appsOwn && phase != "" && slices.Contains([]string{"hook", "exec", "call", "mount", "umount"}, kind) {
			errs = append(errs, ini.Error{Pos: p.Pos, Warning: true, Message: fmt.Sprintf(
				"%s never runs: only a uwsgi has that phase, and the app is a command; let the command be a script that does it", p.Key)})
		}
	}
	return errs
}

// PhaseOf returns the hooks of one phase in the order in which they run:
// hook-, mount-, umount-, then exec- options, each in the file's order.
func PhaseOf(hooks []Hook, ph Phase) []Hook {
	var of []Hook
	for _, h := range hooks {
		if h.Phase == ph {
			of = append(of, h)
		}
	}
	slices.SortStableFunc(of, func(a, b Hook) int { return a.Rank - b.Rank })
	return of
}
