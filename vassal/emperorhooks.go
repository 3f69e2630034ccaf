package vassal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"fiefdom/internal/ini"
)

// The phases of the emperor's own file. No vassal's ini has them.
const (
	EmperorStart Phase = "emperor-start" // the networks are there, no vassal yet
	AsEmperor    Phase = "as-emperor"    // a vassal has started, in the emperor's namespaces and with his rights
)

// EmperorHookOptions are the hooks of the emperor's file alone.
var EmperorHookOptions = slices.Concat([]ini.Option[[]Hook]{{
	Name: "hook-" + string(EmperorStart), Kind: ini.Action, Repeats: true, Since: "0.1",
	Meaning: "ACTION:ARGUMENTS, done once before the first vassal starts", Set: hookSetter(EmperorStart, 0, ""),
}}, asEmperorOptions(), hookOptions(AsVassal, AtExit))

func asEmperorOptions() []ini.Option[[]Hook] {
	table := hookOptions(AsEmperor)
	for i := range table {
		table[i].Meaning = strings.Replace(table[i].Meaning, "once at "+string(AsEmperor),
			"after each start of a vassal, in the emperor's namespaces and as root; UWSGI_VASSAL_CONFIG, _PID, _UID and _GID tell of the vassal, and how it went only the log", 1)
	}
	return table
}

// HookTime bounds what is done for a vassal in the emperor's name, since
// nobody waits for it gladly.
const HookTime = 30 * time.Second

// StartHook is the emperor's vassals-start-hook for one vassal.
type StartHook struct {
	Args   []string `json:"args"`
	Dir    string   `json:"dir"`
	AsUser bool     `json:"as_user"` // under the app's uid, as the whole vassal is in tyrant mode
}

// runStartHook runs the hook if there is one and its moment has come. How it
// went is told, and changes nothing.
func (plan *Plan) runStartHook(ctx context.Context, asUser bool) {
	h := plan.StartHook
	if h == nil || h.AsUser != asUser {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, HookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Args[0], h.Args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.Dir, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Printf("vassals-start-hook %s: %v\n", h.Args[0], err)
	}
}
