package vassal

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// allIDs is the size of a map of every uid or gid: (uid_t)-1 is none.
const allIDs = 1<<32 - 1

// mapUsers sets a fresh user namespace up. Everybody keeps his number there,
// so files belong to whom they belong on the host. Where the plan says so only
// the app's own user and group are known: all others are nobody, and nobody's
// rights over their files are the namespace's.
//
// An init stage that is root, and unknown there, would lose at its exec what
// it needs to become the app's user; ambient capabilities stay (capabilities(7)).
// They are over the namespace alone, and confine takes them away.
func mapUsers(sys *syscall.SysProcAttr, plan *Plan) error {
	if sys.Cloneflags&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	sys.GidMappingsEnableSetgroups = true
	if !plan.OwnIDs {
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: allIDs}}
		sys.UidMappings, sys.GidMappings = all, all
		return nil
	}
	if plan.UID <= 0 || plan.GID <= 0 {
		return errors.New("a user namespace of the owner's own, and no owner")
	}
	sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: plan.UID, HostID: plan.UID, Size: 1}}
	sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: plan.GID, HostID: plan.GID, Size: 1}}
	last, err := capability.LastCap()
	if err != nil {
		return err
	}
	for c := capability.Cap(0); c <= last; c++ {
		sys.AmbientCaps = append(sys.AmbientCaps, uintptr(c))
	}
	return nil
}

// explainClone says what a clone's bare error means where it is about user
// namespaces.
func explainClone(err error, namespaces uintptr) error {
	if namespaces&unix.CLONE_NEWUSER != 0 && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS)) {
		return fmt.Errorf("%w: this machine allows no more user namespaces; see sysctl user.max_user_namespaces", err)
	}
	return err
}
