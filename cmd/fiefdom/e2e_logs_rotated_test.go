package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What memory has no more comes from the file of logto and its backups: every
// line once, in its order.
func TestLogsOfRotatedFiles(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor)
	if err := os.Mkdir(r.Path("/run/t/log"), 0o755); err != nil {
		t.Fatal(err)
	}
	const chunks, chunk = 40, 1000
	r.write("/run/t/say", fmt.Sprintf("for i in $(seq 1 %d); do seq -f \"line $i of the log %%.0f\" 1 %d; sleep 0.05; done; exec sleep 1000\n", chunks, chunk))
	r.drop("blog", "[uwsgi]\nlogto = /run/t/log/blog\nlog-maxsize = 128K\nlog-backups = 100\nlog-compress = true\ncommand = /bin/sh /run/t/say\n")
	r.start()
	last := fmt.Sprintf("line %d of the log %d\n", chunks, chunk)
	nettest.Eventually(t, patience, "all was written", func() bool { return r.mustRun("logs", "-n", "1", "blog") == last })
	if s := r.ps("blog"); s.Output.Lost.Bytes > 0 {
		t.Fatalf("the test itself lost lines: %+v", s.Output)
	}
	var want strings.Builder
	for i := range chunks {
		for n := range chunk {
			fmt.Fprintf(&want, "line %d of the log %d\n", i+1, n+1)
		}
	}
	all := want.String()
	if memory := r.mustRun("logs", "blog"); len(memory) == 0 || len(memory) >= len(all) || !strings.HasSuffix(all, memory) {
		t.Errorf("memory has %d bytes of %d", len(memory), len(all))
	}
	lastLines := func(n int) string {
		lines := strings.SplitAfter(all, "\n")
		return strings.Join(lines[max(0, len(lines)-1-n):], "")
	}
	nettest.Eventually(t, patience, "backups are compressed", func() bool {
		return strings.Contains(r.Run(t, "ls", "/run/t/log"), ".gz")
	})
	check := func(when string) {
		t.Helper()
		for args, want := range map[string]string{
			"-n 100000": all, "-n 30000": lastLines(30000), "-n 39999": lastLines(39999), "--since 1h": all, "--since 1h -n 25000": lastLines(25000), "--since 2h -n 3": lastLines(3),
		} {
			if got := r.mustRun(append([]string{"logs", "blog"}, strings.Fields(args)...)...); got != want {
				t.Errorf("%s, logs %s: %d bytes, want %d; it begins with %.60q, and ends with %q", when, args, len(got), len(want), got, got[max(0, len(got)-60):])
			}
		}
	}
	check("at once")
	var first emperor.LogLine
	if err := json.NewDecoder(strings.NewReader(r.mustRun("logs", "--json", "--since", "1h", "blog"))).Decode(&first); err != nil || !first.Time.IsZero() || !strings.HasPrefix(first.File, "blog.") {
		t.Errorf("%+v, %v", first, err)
	}
	if out := r.mustRun("logs", "-t", "-n", "100000", "blog"); !strings.HasPrefix(out, "-                       line 1 of the log 1\n") {
		t.Errorf("with times: %.60q", out)
	}
	// The next emperor has nothing in memory, and what the app says now comes behind.
	r.die()
	r.start()
	r.awaitState("blog", emperor.Running)
	check("under the next emperor")
	// A line of a file passes for no terminal's, and one that nobody should read is not read.
	r.Run(t, "sh", "-c", `printf 'a\033[2Jb\n' | gzip >/run/t/log/blog.1000000001.gz; ln -s /etc/passwd /run/t/log/blog.1000000002; mkfifo /run/t/log/blog.1000000003`)
	out := r.mustRun("logs", "-n", "100000", "blog")
	if strings.Contains(out, "root:") || !strings.Contains(out, "the files of the log cannot be read: ") {
		t.Errorf("%.200q", out)
	}
	r.Run(t, "rm", "/run/t/log/blog.1000000002", "/run/t/log/blog.1000000003")
	if out := r.mustRun("logs", "-n", "100000", "blog"); out != "a\\x1b[2Jb\n"+all {
		t.Errorf("%.200q", out)
	}
}
