package vassal

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// RangeSize is how many ids a vassal's own user namespace has.
const RangeSize = 1 << 16

// Users is a user namespace of the vassal's own: 0 to 65535 there are a range of
// the host's ids that nobody else has. All other namespaces stay the host's to
// rule, so that capabilities in this one are over its own ids alone.
//
// UID, GID and Groups of a Plan with Users are the host's ids, of the range.
type Users struct {
	First int `json:"first"` // the host's id of what is 0 inside

	// Whom the app's files belong to on disk: who it would be without.
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Inside is the id inside of one of the range's.
func (u *Users) Inside(id int) int { return id - u.First }

// Last is the last of the host's ids in the range.
func (u *Users) Last() int { return u.First + RangeSize - 1 }

// text is the namespace's map of ids, as the kernel shows it.
func (u *Users) text() string { return fmt.Sprintf("0 %d %d", u.First, RangeSize) }

// ids is the map of the namespace.
func (u *Users) ids() []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: u.First, Size: RangeSize}}
}

// Group is who of the range a group on disk is, beside the app's own. The app's own
// changes places with whoever has its number inside, so that this one is never the
// disk's root.
func (u *Users) Group(plan *Plan, disk int) int {
	switch inside := u.Inside(plan.GID); disk {
	case u.GID:
		return plan.GID
	case inside:
		return u.First + u.GID
	}
	return u.First + disk
}

// OnDisk is whom the app's files belong to.
func (plan *Plan) OnDisk() (uid, gid int) {
	if plan.Users != nil {
		return plan.Users.UID, plan.Users.GID
	}
	return plan.UID, plan.GID
}

// swapped is a map for mounts: which id on disk is which of the host's there. The app
// has the rights of one id on disk, whose number inside may be another's on disk:
// these two change places. With capabilities the app could be any of them; so it has
// only its own then, and all others' files are nobody's.
func swapped(first, inside, disk int, alone bool) (ids []syscall.SysProcIDMap) {
	add := func(from, to, size int) {
		if size > 0 {
			ids = append(ids, syscall.SysProcIDMap{ContainerID: from, HostID: first + to, Size: size})
		}
	}
	if alone {
		add(disk, inside, 1)
		return ids
	}
	low, high := min(inside, disk), max(inside, disk)
	add(0, 0, low)
	switch {
	case low == high:
		add(low, low, 1)
	case high < RangeSize:
		add(low, high, 1)
		add(low+1, low+1, high-low-1)
		add(high, low, 1)
	default: // one that no number inside can be
		add(low+1, low+1, RangeSize-low-1)
		add(disk, inside, 1)
		return ids
	}
	add(high+1, high+1, RangeSize-high-1)
	return ids
}

// placeIDs are the maps of places, by whose ids on disk they are seen.
func (plan *Plan) placeIDs() (uids, gids []syscall.SysProcIDMap) {
	u, alone := plan.Users, len(plan.Caps) > 0
	uids = swapped(u.First, u.Inside(plan.UID), u.UID, alone)
	gids = swapped(u.First, u.Inside(plan.GID), u.GID, alone)
	if alone {
		for _, g := range plan.Groups {
			// Group has made each of another on disk.
			disk := u.Inside(g)
			if disk == u.GID {
				disk = u.Inside(plan.GID)
			}
			if g != plan.GID && disk != 0 {
				gids = append(gids, syscall.SysProcIDMap{ContainerID: disk, HostID: g, Size: 1})
			}
		}
	}
	return uids, gids
}

// usersOption is part of confineOptions.
var usersOption = ini.Option[Config]{
	Name: "userns", Kind: ini.Text, Since: "0.1", Set: isolated("userns", setUsers),
	Meaning: "auto: a user namespace of the vassal's own with a range of 65,536 uids and gids that nobody else has; with rootfs and no uid the app is root in it. " +
		"Files in its root and its places stay whose they are on disk",
}

func setUsers(i *Isolation, p ini.Pair) error {
	if p.Value != "auto" && p.Value != "none" {
		return fmt.Errorf("userns = %.100q: want auto, for a range of uids of the vassal's own, or none", p.Value)
	}
	i.Users = p.Value == "auto"
	return nil
}

// made says whether a process's user namespace is the one that was made for it:
// with this map, which only the host's root can have written, and no other's child.
func (u *Users) made(pid int, namespace *os.File) error {
	parent, err := unix.IoctlRetInt(int(namespace.Fd()), unix.NS_GET_PARENT)
	if err != nil {
		return fmt.Errorf("its user namespace: %w", err)
	}
	defer unix.Close(parent)
	theirs, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", parent))
	if err != nil {
		return err
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	if theirs != ours {
		return errors.New("the app is in a user namespace that it made by itself")
	}
	for _, kind := range []string{"uid", "gid"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s_map", pid, kind))
		if err != nil {
			return err
		}
		if got := strings.Join(strings.Fields(string(b)), " "); got != u.text() {
			return fmt.Errorf("the %s map of its user namespace is %q, and should be %q", kind, got, u.text())
		}
	}
	return nil
}
