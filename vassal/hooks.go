package vassal

import (
	"fmt"
	"slices"
	"strings"

	"fiefdom/internal/ini"
)

// Phase is the moment of a hook.
type Phase string

// The phases, in the order in which a start passes them.
const (
	PostJail Phase = "post-jail" // namespaces and devices are there
	AsRoot   Phase = "as-root"   // after chroot, before the app's uid
	AsUser   Phase = "as-user"   // under the app's uid
)

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

// HookOptions are hook-, mount-, umount- and exec- of every phase, of a
// vassal as of the emperor.
var HookOptions = hookOptions(PostJail, AsRoot, AsUser)

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
		if ph != AsUser {
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
			name, args, _ := strings.Cut(p.Value, ":")
			h.Action, h.Args = strings.TrimSpace(name), args
			if rest, ok := strings.CutPrefix(h.Action, "!"); ok {
				h.Action, h.Hidden = rest, true
			}
		}
		if _, ok := actions[h.Action]; !ok {
			return fmt.Errorf("unknown action %q; want one of %s", h.Action, strings.Join(actionNames(), " "))
		}
		*hooks = append(*hooks, h)
		return nil
	}
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
