package nettest

import (
	"runtime/debug"
	"slices"
)

// Raced says whether this is built with the race detector, with which times and
// memory mean little.
func Raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
