package main

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/hostile"
	"fiefdom/internal/nettest"
)

// A command that enters a jail comes with the emperor's program and rights, and
// an app that waits for it there gets hold of neither, also as the owner of the
// program's file. // T15
func TestHostileAppWaitsForCommands(t *testing.T) {
	t.Parallel()
	const root = "uid = root\ngid = root\nconfine = default\n"
	for name, more := range map[string]string{"an app": "", "an app of root's": root, "root of a range of uids": root + "userns = auto\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := sumOf(t, lasting)
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
			r.plantPrograms(&hostile.Site{})
			r.start()
			r.drop("guest", "[uwsgi]\ncommand = "+hostileDir+"/hostile -watch 8s -stay\n"+more)
			r.awaitState("guest", emperor.Running)
			var watched hostile.Watched
			over := func() bool {
				out := r.mustRun("logs", "guest")
				return strings.HasPrefix(out, "{") && json.Unmarshal([]byte(out), &watched) == nil
			}
			entered := 0
			for ; !over(); entered++ {
				r.mustRun("exec", "guest", "--", "true")
			}
			t.Logf("%d commands came, of which it saw %d at their stage", entered, watched.Seen)
			if watched.Seen == 0 || len(watched.Caught) > 0 {
				t.Errorf("%+v", watched)
			}
			if sumOf(t, lasting) != whole {
				t.Error("the emperor's program is another")
			}
		})
	}
}

// sumOf is the checksum of a file.
func sumOf(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}
