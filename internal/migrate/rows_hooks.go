package migrate

import "slices"

const (
	noFunctions = "no functions of a program are called; write what they do as a command, with `exec-`"
	stillError  = "an error: " + noFunctions
	emperorsOwn = "it belongs into the emperor's file"
	noMoment    = "a command has no such moment; do it in `exec-as-user`, or in a script that is the command"
)

// hookRows are the phases with the kinds of hooks that each has.
func hookRows() []row {
	once := "done exactly once at each start, commands by /bin/sh; one that fails, or is ended by a signal, fails the start. Errors under `emperor-tyrant`"
	kinds := func(phase string, kinds ...string) []string {
		var names []string
		for _, kind := range kinds {
			names = append(names, kind+"-"+phase)
		}
		return names
	}
	var made []row
	for _, phase := range of("asap", "pre-jail", "in-jail", "post-jail", "as-root") {
		made = append(made,
			row{names: kinds(phase, "hook", "mount", "umount", "exec"), differs: once},
			row{names: kinds(phase, "call"), differs: stillError, missing: noFunctions})
	}
	made = append(made,
		row{names: kinds("as-user", "hook", "exec"), differs: once},
		row{names: kinds("as-vassal", "hook", "mount", "umount", "exec"), side: Emperor, differs: once},
		row{names: kinds("as-emperor", "hook", "mount", "umount", "exec"), side: Emperor, differs: "beside the emperor, which never waits for them"},
		row{names: of("hook-emperor-start", "hook-emperor-stop", "hook-emperor-reload", "hook-emperor-lost")},
		row{names: slices.Concat(kinds("as-vassal", "hook", "mount", "umount", "exec"), kinds("as-emperor", "hook", "mount", "umount", "exec")), side: Vassal, missing: emperorsOwn},
		row{names: of("call-as-vassal", "call-as-vassal1", "call-as-vassal3", "call-as-emperor", "call-as-emperor1", "call-as-emperor2", "call-as-emperor4"), differs: stillError, missing: noFunctions},
		row{names: of("hook-touch"), app: true},
		row{names: of("hook-as-user-atexit", "exec-as-user-atexit"), side: Emperor},
		row{names: of("hook-as-user-atexit", "exec-as-user-atexit"), side: Vassal, app: true, missing: noMoment},
		row{names: of("hook-pre-app", "exec-pre-app", "hook-post-app", "exec-post-app", "hook-post-fork", "hook-master-start", "hook-as-mule", "hook-as-gateway",
			"hook-accepting", "hook-accepting1", "hook-accepting-once", "hook-accepting1-once"), side: Vassal, app: true, missing: noMoment},
		row{names: of("call-as-user", "call-as-user-atexit", "call-pre-app", "call-post-app"), side: Vassal, app: true, differs: stillError, missing: noFunctions},
		row{names: of("binsh"), side: Vassal, app: true, missing: "hooks run by /bin/sh; write `exec-as-root = bash -c '…'`"})
	return made
}
