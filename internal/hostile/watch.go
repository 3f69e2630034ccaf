package hostile

import (
	"encoding/json"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// Watched is what -watch prints when it is over.
type Watched struct {
	Seen   int      `json:"seen"`   // stages of the emperor's program that came into the jail
	Caught []string `json:"caught"` // what it could do to one
}

// stageWord is on the command line of a process that is still the emperor's
// program, with rights that it will give up before it becomes the app.
const stageWord = "init-stage"

// watch waits for what enters the jail, and attacks it as long as it is not yet
// what it will be: of its program, its memory and its descriptors one would do.
func watch(during time.Duration, stdout io.Writer) error {
	var w Watched
	seen := map[int]bool{}
	for over := time.Now().Add(during); time.Now().Before(over); runtime.Gosched() {
		for _, pid := range numbers("/proc") {
			if pid == os.Getpid() || !isStage(pid) {
				continue
			}
			if pid != 1 && !seen[pid] { // 1 is the reaper
				seen[pid] = true
				w.Seen++
			}
			for name, try := range map[string]func() Finding{
				"secrets": func() Finding { return secretsOf(pid) },
				"program": func() Finding { return overwrites(procPath(pid, "exe")) },
				"trace":   func() Finding { return traces(pid) },
				"memory":  func() Finding { return readsMemory(pid) },
				"files":   func() Finding { return stealsDescriptor(pid) },
			} {
				if f := try(); f.Outcome == Escaped && isStage(pid) && len(w.Caught) < 10 {
					w.Caught = append(w.Caught, itoa(pid)+" "+name+": "+f.Detail)
				}
			}
		}
	}
	return json.NewEncoder(stdout).Encode(w)
}

func isStage(pid int) bool {
	words, _ := os.ReadFile(procPath(pid, "cmdline"))
	return strings.Contains(string(words), stageWord)
}
