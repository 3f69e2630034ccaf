package vassal

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Foresee is what Observe would say of an app that the plan has started with fresh
// namespaces, and on the host's network unless net says otherwise.
func (plan *Plan) Foresee(namespaces uintptr, net bool) *Observed {
	k := plan.Confined
	o := &Observed{
		UID: max(plan.UID, 0), IDs: append(slices.Clone(plan.Groups), max(plan.UID, 0), max(plan.GID, 0)), Capabilities: plan.Caps,
		NoNewPrivs: plan.Bounded || plan.NoNewPrivs || k != nil, Filtered: k != nil, OwnRoot: plan.Isolation.OwnRoot(plan.Chroot),
		sealed: func(path string) bool { return k != nil && !k.names(path) },
	}
	if plan.UID <= 0 && !plan.Bounded && !plan.KeepCaps {
		o.Capabilities = []string{"all"}
	}
	for kind, flag := range map[string]uintptr{
		"pid": unix.CLONE_NEWPID, "mnt": unix.CLONE_NEWNS, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "net": unix.CLONE_NEWNET, "cgroup": unix.CLONE_NEWCGROUP,
	} {
		switch {
		case namespaces&flag != 0, kind == "net" && net, kind == "cgroup" && k != nil:
		default:
			o.Shared = append(o.Shared, kind)
		}
	}
	slices.Sort(o.Shared)
	own := k != nil || o.OwnRoot
	o.Tmp, o.Run, o.Dev, o.Machine = !own, !own, !own, k == nil
	if k == nil {
		o.Open = []string{"/"}
	}
	if k == nil && (!plan.Bounded || !plan.Mounts) {
		o.Setuid = []string{"/"}
	}
	if k == nil || !k.strict() {
		o.Executable = []string{"/tmp"}
	}
	return o
}
