package nettest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// legacyControllers are those of cgroup v1 that an emperor limits vassals by.
var legacyControllers = []string{"cpu", "memory", "pids", "blkio"}

// makeLegacy makes the world's roots in the v1 trees, and returns each with the
// tree's mount point. The world's processes are not in them: an emperor makes
// what it needs below.
func (w *World) makeLegacy(t testing.TB) []string {
	t.Helper()
	var binds []string
	for _, m := range trees(t, "cgroup") {
		if !slices.ContainsFunc(strings.Split(m.VFSOptions, ","), func(o string) bool { return slices.Contains(legacyControllers, o) }) {
			continue
		}
		root := NewCgroup(t, m.Mountpoint)
		w.legacy = append(w.legacy, root)
		binds = append(binds, root, m.Mountpoint)
	}
	return binds
}

// Legacy is the world's root in the v1 tree of a controller, seen from outside;
// "" if the machine has none.
func (w *World) Legacy(controller string) string {
	for _, root := range w.legacy {
		if slices.Contains(strings.Split(filepath.Base(filepath.Dir(root)), ","), controller) {
			return root
		}
	}
	return ""
}
