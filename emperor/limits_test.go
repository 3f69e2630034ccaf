package emperor

import (
	"reflect"
	"syscall"
	"testing"
	"time"

	"fiefdom/vassal"
)

// What makes a vassal beside its limits is what it says, not where.
func TestBare(t *testing.T) {
	parse := func(text string) *vassal.Config {
		t.Helper()
		x := expandWith(t, goodEmperor(t, ""), 0, "blog", text)
		if x.Errors.Failed() {
			t.Fatal(x.Errors)
		}
		x.Config.File = "blog.ini" // which is another folder's each time
		return x.Config
	}
	const app = "command = /bin/app\nattach-daemon = sleep 1\ntuntap-device = eth0\nexec-as-root = id\nunshare = ipc\nuid = 5\n"
	before := bare(parse(app))
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"as it was":          {app, true},
		"a limit more":       {"limit-pids = 99\n" + app, true},
		"limits below":       {app + "limit-memory = 64M\nlimit-cpu = 0.5\n", true},
		"lines moved":        {"\n; a comment\n\n" + app, true},
		"another command":    {"command = /bin/other\n" + app[len("command = /bin/app\n"):], false},
		"another daemon":     {app + "attach-daemon = sleep 2\n", false},
		"an environment":     {app + "env = A=1\n", false},
		"a limit of another": {app + "max-fd = 99\n", false},
		"a mercy":            {app + "reload-mercy = 5\n", false},
		"another score":      {app + "oom-score-adj = 5\n", false},
	} {
		if got := reflect.DeepEqual(bare(parse(c.text)), before); got != c.same {
			t.Errorf("%s: the same is %v, want %v", name, got, c.same)
		}
	}
}

func TestEndForMemory(t *testing.T) {
	limits := vassal.Resources{Memory: 64 << 20}
	for name, c := range map[string]struct {
		limits vassal.Resources
		killed time.Duration // ago; negative: never
		exit   vassal.Exit
		want   string
	}{
		"killed for memory":     {limits, 0, vassal.Exit{Signal: syscall.SIGKILL}, "killed: out of memory (limit-memory = 64M)"},
		"without a limit":       {vassal.Resources{}, 0, vassal.Exit{Signal: syscall.SIGKILL}, "killed: out of memory (the machine's memory)"},
		"killed otherwise":      {limits, -1, vassal.Exit{Signal: syscall.SIGKILL}, "killed by SIGKILL"},
		"another died long ago": {limits, time.Minute, vassal.Exit{Signal: syscall.SIGKILL}, "killed by SIGKILL"},
		"ended by itself":       {limits, 0, vassal.Exit{Code: 3}, "exit code 3"},
	} {
		v := &member{limits: c.limits}
		if c.killed >= 0 {
			v.shortage.last = time.Now().Add(-c.killed)
		}
		if got := v.ended(c.exit); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
