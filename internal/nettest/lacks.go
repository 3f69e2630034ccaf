package nettest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Lacks ends a test for want of something that can be had: it is skipped, or fails
// where all have to run (see RootEnv).
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(RootEnv) == "1" {
		t.Fatalf(RootEnv+"=1 forbids to skip: "+format, args...)
	}
	t.Skipf(format, args...)
}

// NotHere skips a test for want of something that this machine's kernel does not
// have, or not in this way: cgroups are in v1 trees or in the v2 tree, never in
// both. The words are those that .ci/summary.awk knows such a skip by. Who calls
// it has asked the kernel, and not the code under test.
func NotHere(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Skipf(notHere+format, args...)
}

const notHere = "not on this machine: "

// Program is where a program is.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Lacks(t, "needs %s: %v", name, err)
	}
	return path
}

// Tuntap is uWSGI's tuntap plugin.
func Tuntap(t testing.TB) string {
	t.Helper()
	const plugin = "/usr/lib/uwsgi/plugins/tuntap_plugin.so"
	if _, err := os.Stat(plugin); err != nil {
		Lacks(t, "needs uWSGI with its tuntap plugin: %v", err)
	}
	return plugin
}

// Unified is for tests that need a v2 tree of cgroups.
func Unified(t testing.TB) {
	t.Helper()
	if len(trees(t, "cgroup2")) == 0 {
		NotHere(t, "there is no v2 tree of cgroups")
	}
}

// LegacyLimits is for tests that need all controllers that an emperor limits
// vassals by in v1 trees: worlds have those for themselves.
func LegacyLimits(t testing.TB) {
	t.Helper()
	for _, controller := range legacyControllers {
		if !slices.ContainsFunc(trees(t, "cgroup"), func(m *mountinfo.Info) bool {
			return slices.Contains(strings.Split(m.VFSOptions, ","), controller)
		}) {
			NotHere(t, "there is no v1 tree of cgroups for %s", controller)
		}
	}
}

// trees are the mounted trees of cgroups of a version.
func trees(t testing.TB, fstype string) []*mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fstype))
	if err != nil {
		t.Fatalf("look for trees of cgroups: %v", err)
	}
	return mounts
}
