package vassal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// readBack compares what the kernel says of the process that has become the app
// with what its plan says. An app that has ended meanwhile is not judged.
func (g *Generation) readBack() error {
	plan := &g.launch.Plan
	if !plan.Bounded || g.PID == 0 {
		return nil
	}
	err := g.readBackStatus()
	if err == nil && plan.Confined != nil {
		err = g.readBackUsers()
	}
	if err == nil && plan.Confined != nil && !slices.Contains(plan.Caps, "sys_admin") { // else the app may have changed it
		err = errors.Join(g.readBackNamespaces(), g.readBackMounts())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil || g.over || g.waited || !g.holdsPID() || g.isZombie() {
		return nil
	}
	return fmt.Errorf("the app is not confined as it should be, and was ended: %w", err)
}

// isZombie says whether the app has ended and nobody has waited for it.
func (g *Generation) isZombie() bool {
	fields, err := statusFields(g.PID)
	return err != nil || strings.HasPrefix(fields["State"], "Z") || strings.HasPrefix(fields["State"], "X")
}

func statusFields(pid int) (map[string]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields, nil
}

func (g *Generation) readBackStatus() error {
	plan := &g.launch.Plan
	fields, err := statusFields(g.PID)
	if err != nil {
		return err
	}
	var errs []error
	want := func(field, value string) {
		if got := strings.Join(strings.Fields(fields[field]), " "); got != value {
			errs = append(errs, fmt.Errorf("%s is %q, and should be %q", field, got, value))
		}
	}
	want("NoNewPrivs", "1")
	var keep uint64
	for _, c := range plan.capNumbers() {
		keep |= 1 << c
	}
	elsewhere := plan.Confined == nil && g.sameUsers() != nil // in a user namespace it has every right, over that alone
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if has, err := strconv.ParseUint(fields[set], 16, 64); err != nil || has&^keep != 0 && !elsewhere {
			errs = append(errs, fmt.Errorf("%s is %s, and should have nothing but %#x", set, fields[set], keep))
		}
	}
	if plan.Confined != nil {
		want("Seccomp", "2")
	}
	if len(plan.Caps) == 0 && plan.UID >= 0 { // else the app may have changed it
		four := func(id int) string { return strings.TrimSpace(strings.Repeat(strconv.Itoa(id)+" ", 4)) }
		want("Uid", four(plan.UID))
		if plan.GID >= 0 {
			want("Gid", four(plan.GID))
		}
	}
	for group := range strings.FieldsSeq(fields["Groups"]) {
		if n, err := strconv.Atoi(group); plan.SetGroups && len(plan.Caps) == 0 && (err != nil || !slices.Contains(plan.Groups, n)) {
			errs = append(errs, fmt.Errorf("it is in group %s", group))
		}
	}
	return errors.Join(errs...)
}

// confinedNamespaces are those that a confined app never shares with the host.
var confinedNamespaces = []string{"pid", "mnt", "ipc", "uts"}

func (g *Generation) readBackNamespaces() error {
	for _, kind := range confinedNamespaces {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", g.PID, kind))
		if err != nil {
			return err
		}
		if ours, err := os.Readlink("/proc/self/ns/" + kind); err != nil || ours == theirs {
			return errors.Join(fmt.Errorf("its %s namespace is the host's", kind), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", g.PID), &st); err != nil {
		return err
	}
	if g.inode != 0 && st.Ino != g.inode {
		return errors.New("its network namespace is not its jail's")
	}
	return nil
}

// readBackUsers finds the app in the user namespace that was made for it.
func (g *Generation) readBackUsers() error {
	if g.launch.Plan.Users == nil {
		return nil
	}
	return g.sameUsers()
}

// readBackMounts finds no mount that can be written but those that are to be, and
// finds the private ones.
func (g *Generation) readBackMounts() error {
	k := g.launch.Plan.Confined
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", g.PID))
	if err != nil {
		return err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return err
	}
	plan := &g.launch.Plan
	hooked := plan.hooked()      // what they mount is as they like
	kinds := map[string]string{} // the newest at each place
	for _, m := range mounts {
		kinds[m.Mountpoint] = m.FSType
		options := strings.Split(m.Options, ",")
		if !slices.Contains(options, "ro") && !k.mayWriteTo(m.Mountpoint) && (!hooked || m.Mountpoint == "/") {
			return fmt.Errorf("%s can be written", m.Mountpoint)
		}
		if !slices.Contains(options, "nosuid") {
			return fmt.Errorf("on %s programs have rights of their own", m.Mountpoint)
		}
	}
	for path, kind := range map[string]string{"/proc": "proc", "/tmp": "tmpfs", "/run": "tmpfs", devices: "tmpfs"} {
		if k.names(path) {
			continue
		}
		real, err := filepath.EvalSymlinks(path)
		if own := plan.ownRoot(); own || err != nil {
			if _, there := kinds[path]; !there { // that root need not have such a folder
				continue
			}
			real = path
		}
		got := kinds[real]
		if got != kind {
			return fmt.Errorf("%s is a %s, and should be a %s", path, cmp.Or(got, "folder of the host's"), kind)
		}
	}
	return nil
}

// mayWriteTo says whether a mount at a path may be one that can be written.
func (k *Confined) mayWriteTo(path string) bool {
	if path == "/proc" || Under(path, devices) && path != devices {
		return true
	}
	for _, p := range privatePlaces {
		if real, err := filepath.EvalSymlinks(p.path); p.path != devices && (p.path == path || err == nil && real == path) {
			return true
		}
	}
	return k.names(path)
}

// names says whether the ini names a place, or one above it, to be written.
func (k *Confined) names(path string) bool {
	return slices.ContainsFunc(k.Writable, func(w string) bool { return Under(path, w) }) ||
		slices.ContainsFunc(k.Binds, func(b Bind) bool { return !b.ReadOnly && Under(path, b.Target) })
}
