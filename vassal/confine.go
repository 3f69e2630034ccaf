package vassal

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// confine takes the app's rights away, in the only order that works: the
// emperor's keys, the bounding set while we may still change it, then groups,
// gid and uid, then what is left of the capabilities, then no_new_privs. Keyring,
// capabilities and no_new_privs belong to a thread, so the caller's must be
// locked: it is the one that execs.
func (plan *Plan) confine() error {
	if err := plan.bound(); err != nil { // whatever way led here
		return err
	}
	if err := leaveKeyring(); err != nil {
		return err
	}
	keep := plan.capNumbers()
	if plan.Bounded || plan.KeepCaps { // root regains at exec what is in the bounding set
		if err := dropBounding(keep); err != nil {
			return err
		}
	}
	if plan.KeepCaps {
		// Permitted capabilities survive the change of uid (capabilities(7)).
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keep capabilities: %w", err)
		}
	}
	if plan.SetGroups {
		if err := syscall.Setgroups(plan.Groups); err != nil {
			return fmt.Errorf("groups %v: %w", plan.Groups, err)
		}
	}
	if plan.GID >= 0 {
		if err := syscall.Setresgid(plan.GID, plan.GID, plan.GID); err != nil {
			return fmt.Errorf("gid %d: %w", plan.GID, err)
		}
	}
	if plan.UID >= 0 {
		if err := syscall.Setresuid(plan.UID, plan.UID, plan.UID); err != nil {
			return fmt.Errorf("uid %d: %w", plan.UID, err)
		}
	}
	if plan.KeepCaps || plan.Bounded {
		if err := setCapabilities(keep); err != nil {
			return err
		}
	}
	if plan.Bounded || plan.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	return nil
}

// leaveKeyring gives the app an empty session keyring of its own, instead of the
// emperor's with whatever an operator's login or the service manager keeps in it.
// It is made as root: neighbours of one uid neither see it nor share its quota.
func leaveKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) // 0: no name that others could join
	// No keyrings in this kernel, or the emperor's own container forbids them; it
	// then forbids them to the app, too.
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("session keyring of its own: %w (are there too many keys of one user? see kernel.keys.maxkeys)", err)
	}
	return nil
}

// bound takes away, before the first hook, what neither hooks nor the app can
// have: emperor-cap.
func (plan *Plan) bound() error {
	if !plan.BoundSet {
		return nil
	}
	keep := []capability.Cap{capability.CAP_SETPCAP} // as uWSGI: else confine could drop no more
	for _, name := range plan.Bound {
		keep = append(keep, capabilities()[name])
	}
	return dropBounding(keep)
}

func (plan *Plan) capNumbers() []capability.Cap {
	var keep []capability.Cap
	for _, name := range plan.Caps {
		keep = append(keep, capabilities()[name])
	}
	return keep
}

func dropBounding(keep []capability.Cap) error {
	last, err := capability.LastCap()
	if err != nil {
		return fmt.Errorf("capabilities of this kernel: %w", err)
	}
	for c := capability.Cap(0); c <= last; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s from the bounding set: %w", c, err)
		}
	}
	return nil
}

// setCapabilities leaves exactly keep in every set; ambient ones are what an
// app without file capabilities has after exec.
func setCapabilities(keep []capability.Cap) error {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	caps.Clear(capability.CAPS | capability.AMBS)
	caps.Set(capability.CAPS|capability.AMBS, keep...)
	if err := caps.Apply(capability.CAPS | capability.AMBS); err != nil {
		return fmt.Errorf("set capabilities %v: %w", keep, err)
	}
	return nil
}
