package vassal

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// mountView is the mounts that a process sees.
type mountView struct {
	all  []*mountinfo.Info          // by place, the newest of each
	by   map[string]*mountinfo.Info // place
	root string                     // of a process with a changed root, as it is seen from here; else /
}

// readMounts says what the mounts of the process come to. k is what its plan means
// to give; nil: nothing.
func (o *Observed) readMounts(k *Confined) error {
	host, err := mountsOf("self")
	if err != nil {
		return err
	}
	m, err := mountsOf(strconv.Itoa(o.PID))
	if err != nil {
		return err
	}
	if k == nil {
		k = new(Confined)
	}
	o.OwnRoot = !m.shares("/", host)
	o.Tmp, o.Run, o.Dev = m.shares("/tmp", host), m.shares("/run", host), m.shares(devices, host)
	o.Machine, o.Open = m.machine(), m.open(k)
	o.Setuid, o.Executable = m.without("nosuid", false), m.without("noexec", true)
	o.sealed = m.readOnly
	return nil
}

func mountsOf(pid string) (m mountView, err error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return m, err
	}
	defer f.Close()
	all, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return m, err
	}
	m.by = map[string]*mountinfo.Info{}
	for _, mount := range all {
		m.by[mount.Mountpoint] = mount // what is mounted over another hides it
	}
	m.all = slices.DeleteFunc(all, func(mount *mountinfo.Info) bool { return m.by[mount.Mountpoint] != mount })
	m.root, err = os.Readlink("/proc/" + pid + "/root")
	return m, err
}

// at is the mount that covers a path; nil: that of a folder above its root.
func (m mountView) at(path string) *mountinfo.Info {
	for ; ; path = filepath.Dir(path) {
		if mount := m.by[path]; mount != nil || path == "/" {
			return mount
		}
	}
}

// shares says whether what is at a path is the same for those who see other mounts.
func (m mountView) shares(path string, other mountView) bool {
	if m.root != other.root {
		return false // a root of its own
	}
	a, b := m.at(path), other.at(path)
	return a != nil && b != nil && a.Major == b.Major && a.Minor == b.Minor && within(a, path) == within(b, path)
}

// within is a path's place in the file system of a mount.
func within(m *mountinfo.Info, path string) string {
	rel, err := filepath.Rel(m.Mountpoint, path)
	if err != nil {
		return path
	}
	return filepath.Join(m.Root, rel)
}

func mountedWith(m *mountinfo.Info, option string) bool {
	return slices.Contains(strings.Split(m.Options, ","), option)
}

// readOnly says whether what is at a path cannot be written, whatever its modes say.
func (m mountView) readOnly(path string) bool {
	covers := m.at(path)
	return covers != nil && mountedWith(covers, "ro")
}

// ofKernel are places whose mounts are judged by machine, and hold no files.
func ofKernel(path string) bool {
	return path == "/proc" || Under(path, "/proc") || Under(path, "/sys") || path == devices || Under(path, devices+"/pts") || Under(path, devices+"/mqueue")
}

// open are the mounts that can be written beside private ones and those that the
// plan means to give.
func (m mountView) open(k *Confined) (paths []string) {
	for _, mount := range m.all {
		if mount.Mountpoint != "/sys" && !mountedWith(mount, "ro") && !k.mayWriteTo(mount.Mountpoint) {
			paths = append(paths, mount.Mountpoint)
		}
	}
	return paths
}

// without are the mounts that do not have an option: nosuid, or noexec of those
// that can be written.
func (m mountView) without(option string, written bool) (paths []string) {
	for _, mount := range m.all {
		if mountedWith(mount, option) || written && (mountedWith(mount, "ro") || ofKernel(mount.Mountpoint)) {
			continue
		}
		paths = append(paths, mount.Mountpoint)
	}
	return paths
}

// machine says whether /proc and /sys have what is the machine's to change.
func (m mountView) machine() bool {
	proc, settings, sys := m.at("/proc"), m.at("/proc/sys"), m.at("/sys")
	if proc != nil && proc.FSType == "proc" && (settings == proc || !mountedWith(settings, "ro")) {
		return true
	}
	return sys != nil && sys.FSType == "sysfs" && !mountedWith(sys, "ro")
}
