package emperor

import (
	"strings"
	"testing"
)

// Without tyrant mode the hooks of anybody's ini run as root: that is said.
func TestHooksOfOthersAreWarnedOf(t *testing.T) {
	for name, tc := range map[string]struct {
		ini  string
		uid  uint32
		warn bool
	}{
		"another's, as root":      {"exec-as-root = true", 33, true},
		"another's, early":        {"hook-pre-jail = mkdir:/x", 33, true},
		"another's, as user":      {"exec-as-user = true", 33, false},
		"another's, without any":  {"", 33, false},
		"root's own, as ever":     {"exec-as-root = true", 0, false},
		"another's, last of many": {"exec-as-user = true\nexec-as-root = true", 33, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t)
			v := &member{name: "blog", file: iniFile{name: "blog", path: "/v/blog.ini", owner: owner{tc.uid, tc.uid}}}
			errs := e.claim(v, &expansion{Name: "blog", Config: goodVassal(t, "blog", tc.ini)})
			if warned := len(errs) == 1 && errs[0].Warning && errs[0].Pos.Line > 0 && strings.Contains(errs[0].Message, "uid 33"); warned != tc.warn || !warned && len(errs) > 0 {
				t.Error(errs)
			}
		})
	}
}
