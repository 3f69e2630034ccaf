package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// logsEmperor has no networks.
const logsEmperor = "[uwsgi]\nemperor = /run/t/vassals\n"

// logText is all that a log and its backups have, and how many bytes they take
// up on the disk.
func (r *realm) logText(path string) (text string, files int, used int64) {
	r.t.Helper()
	names, err := filepath.Glob(r.Path(path) + "*")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it became a compressed one meanwhile
		}
		used += int64(len(b))
		files++
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				r.t.Fatalf("%s: %v", name, err)
			}
			if b, err = io.ReadAll(z); err != nil {
				r.t.Fatalf("%s: %v", name, err)
			}
		}
		text += string(b)
	}
	return text, files, used
}

// A tenant's log is rotated and compressed in his folder, as him, and no line
// is lost; what he lays in the way hurts nobody but him.
func TestTenantsLogIsRotated(t *testing.T) {
	t.Parallel()
	const owner = 61234
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor+"emperor-tyrant = true\n")
	dir := "/run/t/home"
	if err := os.MkdirAll(r.Path(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.Path(dir), owner, owner); err != nil {
		t.Fatal(err)
	}
	r.write("/run/t/victim", "mine\n")
	// Links where the emperor's rotation will come by.
	for _, name := range []string{"log.1700000000", "log.1700000001.gz.tmp"} {
		if err := os.Symlink("/run/t/victim", r.Path(dir+"/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	vassals := r.Path(realmDir + "/vassals")
	if err := os.Chown(vassals, owner, owner); err != nil {
		t.Fatal(err)
	}
	// More at once than may wait for a busy disk would be a flood, which loses some.
	const count, burst = 20_000, 10_000
	r.writeAs(iniPath("blog"), fmt.Sprintf("[uwsgi]\nbind = /run/t:ro\nlogto = %s/log\nlog-maxsize = 64K\nlog-backups = 100\nlog-compress = true\n"+
		"command = /bin/sh -c \"i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i of the log; "+
		"[ $i -ne %d ] || until [ -e /run/t/more ]; do sleep 0.01; done; done; exec sleep 1000\"\n", dir, count, burst), owner, owner)
	r.start()
	r.awaitState("blog", emperor.Running)
	for i := burst; i <= count; i += burst {
		nettest.Eventually(t, 2*patience, fmt.Sprintf("%d lines are written", i), func() bool {
			text, _, _ := r.logText(dir + "/log")
			return strings.Contains(text, fmt.Sprintf("line %d of the log\n", i))
		})
		r.write("/run/t/more", "")
	}
	nettest.Eventually(t, 2*patience, "backups are compressed", func() bool {
		zipped, _ := filepath.Glob(r.Path(dir) + "/log.*.gz")
		all, _ := filepath.Glob(r.Path(dir) + "/log.*")
		return len(zipped) >= 5 && len(all) <= len(zipped)+1 // the link stays
	})
	text, files, _ := r.logText(dir + "/log")
	for i := range count {
		if line := fmt.Sprintf("line %d of the log\n", i+1); !strings.Contains(text, line) {
			t.Fatalf("%q is lost", line)
		}
	}
	if s := r.ps("blog"); s.Output == nil || s.Output.Lost.Bytes != 0 || s.Output.File != dir+"/log" {
		t.Errorf("%d files, status %+v", files, s.Output)
	}
	if got := r.read("/run/t/victim"); got != "mine\n" {
		t.Errorf("the victim has %q", got)
	}
	names, err := os.ReadDir(r.Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		var st unix.Stat_t
		if err := unix.Lstat(r.Path(dir+"/"+e.Name()), &st); err != nil {
			t.Fatal(err)
		}
		if e.Type().IsRegular() && st.Uid != owner {
			t.Errorf("%s belongs to %d", e.Name(), st.Uid)
		}
	}
}

// A log in somebody's folder is opened and rotated as he could do it, also when
// the emperor is no tyrant.
func TestLogInAnAppsFolder(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor)
	const owner = 61234
	for _, dir := range []string{"/run/t/app", "/run/t/app2"} {
		if err := os.MkdirAll(r.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.Path(dir), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	r.write("/run/t/victim", "mine\n")
	r.write("/run/t/app2/inherited", "of root\n")
	if err := os.Symlink("/run/t/victim", r.Path("/run/t/app/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run/t", r.Path("/run/t/app/folder")); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(r.Path("/run/t/app/folder"), owner, owner); err != nil {
		t.Fatal(err)
	}
	ini := "[uwsgi]\nlogto = %s\ncommand = /bin/sh -c \"echo hello; exec sleep 1000\"\n"
	r.drop("good", fmt.Sprintf(ini, "/run/t/app/good"))
	r.drop("inherited", fmt.Sprintf(ini, "/run/t/app2/inherited"))
	r.drop("link", fmt.Sprintf(ini, "/run/t/app/link"))
	r.drop("folder", fmt.Sprintf(ini, "/run/t/app/folder/victim"))
	r.start()
	for _, name := range []string{"link", "folder"} {
		s := r.await(name, "is refused", func(s emperor.Status) bool { return s.State == emperor.Backoff })
		if !strings.Contains(s.Error, "symbolic link") {
			t.Errorf("%s: %s", name, s.Error)
		}
	}
	nettest.Eventually(t, patience, "the others are written", func() bool {
		return r.read("/run/t/app/good") == "hello\n" && r.read("/run/t/app2/inherited") == "of root\nhello\n"
	})
	var st unix.Stat_t
	if err := unix.Stat(r.Path("/run/t/app/good"), &st); err != nil || st.Uid != owner {
		t.Errorf("the log belongs to %d, %v", st.Uid, err)
	}
	if got := r.read("/run/t/victim"); got != "mine\n" {
		t.Errorf("the victim has %q", got)
	}
}

// fifo makes a FIFO by which a test talks to a vassal.
func (r *realm) fifo(path string) *os.File {
	r.t.Helper()
	if err := unix.Mkfifo(r.Path(path), 0o600); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(r.Path(path), os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return f
}

// A flood costs its own vassal lines, all of them counted, and nobody else
// anything; the disk holds what the ini allows (T47).
func TestSoakFloodOfOutput(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor+"logto = /run/t/emperor.log\nlog-maxsize = 1M\nlog-backups = 2\n")
	tell := r.fifo("/run/t/tell")
	r.drop("quiet", "[uwsgi]\ncommand = /bin/sh -c \"while read line; do echo $line; done </run/t/tell\"\n")
	r.start()
	r.awaitState("quiet", emperor.Running)
	heard := r.follow("quiet")
	say := func(what string) {
		var took []time.Duration
		for i := range scaled(50, 2000) {
			line := fmt.Sprintf("%s: line %d", what, i)
			began := time.Now()
			fmt.Fprintln(tell, line)
			select {
			case got := <-heard:
				if got != line {
					t.Fatalf("heard %q, want %q", got, line)
				}
			case <-time.After(patience):
				t.Fatalf("%q is not heard", line)
			}
			took = append(took, time.Since(began))
			if _, _, used := r.logText("/run/t/flood.log"); used > 4*256<<10 {
				t.Fatalf("the flood's log has %d bytes", used)
			}
			if _, _, used := r.logText("/run/t/emperor.log"); used > 3<<20 {
				t.Fatalf("the emperor's log has %d bytes", used)
			}
		}
		slices.Sort(took)
		if late := took[len(took)*scaled(90, 99)/100]; late > time.Duration(100*slowness())*time.Millisecond {
			t.Errorf("%s: too many lines are heard after %v or later", what, late)
		}
		t.Logf("%s: a line is heard after %v (median), %v (99 of 100), %v (at most)", what, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	}
	say("alone")
	r.drop("flood", "[uwsgi]\nlogto = /run/t/flood.log\nlog-maxsize = 256K\nlog-backups = 3\ncommand = /bin/sh -c \"exec yes 0123456789abcdefghijklmnopqrstuvwxyz\"\n")
	r.drop("spill", "[uwsgi]\ncommand = /bin/sh -c \"exec yes spilt\"\n") // into the emperor's log
	for _, name := range []string{"flood", "spill"} {
		nettest.Eventually(t, time.Duration(scaled(3, 10))*patience, name+" floods", func() bool {
			s := r.ps(name)
			return s.State == emperor.Running && s.Output.Bytes > uint64(scaled(10, 300))<<20
		})
	}
	say("beside two floods")
	flood := r.ps("flood")
	t.Logf("the flood wrote %d bytes, %+v is lost", flood.Output.Bytes, flood.Output.Lost)
	r.stop(syscall.SIGTERM)
}

// follow is what a vassal says from now on, as logs -f tells it.
func (r *realm) follow(vassal string) <-chan string {
	r.t.Helper()
	lines, ended := make(chan string, 16), make(chan struct{})
	ctx, stop := context.WithCancel(r.t.Context())
	go func() {
		defer close(ended)
		_ = r.api.LogLines(ctx, vassal, emperor.LogQuery{Follow: true}, func(l emperor.LogLine) error {
			select {
			case lines <- l.Text:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	r.t.Cleanup(func() { stop(); <-ended })
	return lines
}

// A full disk costs lines, which are counted to the byte, and not the vassal;
// the log goes on when there is room again, and says what is missing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor)
	tell := r.fifo("/run/t/tell")
	dir := r.Path("/run/t/small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.Run(t, "mount", "-t", "tmpfs", "-o", "size=1m", "small", "/run/t/small")
	if err := os.WriteFile(dir+"/filler", make([]byte, 896<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r.write("/run/t/say", "while read n; do i=0; while [ $i -lt $n ]; do i=$((i+1)); echo line $i 0123456789012345678901234567890123456789; done; done </run/t/tell\n")
	r.drop("blog", "[uwsgi]\nlogto = /run/t/small/log\ncommand = /bin/sh /run/t/say\n")
	r.start()
	s := r.awaitState("blog", emperor.Running)
	const count = 10_000 // some 500 KB
	fmt.Fprintln(tell, count)
	var before emperor.Status
	r.await("blog", "wrote all, and lost most", func(s emperor.Status) bool {
		last := r.mustRun("logs", "-n", "1", "blog")
		before = s
		return strings.HasPrefix(last, fmt.Sprintf("line %d ", count)) && s.Output.Lost.Bytes > 0 && s.Output.Reason == "no space left on device"
	})
	if err := os.Remove(dir + "/filler"); err != nil {
		t.Fatal(err)
	}
	var text string
	nettest.Eventually(t, patience, "the loss is told", func() bool {
		text = r.read("/run/t/small/log")
		return toldLost(t, text) == r.ps("blog").Output.Lost.Bytes
	})
	fmt.Fprintln(tell, 1)
	nettest.Eventually(t, patience, "the log goes on", func() bool {
		text = r.read("/run/t/small/log")
		return strings.HasSuffix(text, "\nline 1 0123456789012345678901234567890123456789\n")
	})
	now := r.ps("blog")
	if now.PID != s.PID || now.Output.Lost.Bytes < before.Output.Lost.Bytes {
		t.Errorf("it was %+v, then %+v", before.Output, now.Output)
	}
	own, notices := 0, 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "fiefdom: ") {
			notices++
		} else {
			own += len(line)
		}
	}
	// A line that is cut off has an end before the notice.
	if ends := own + int(now.Output.Lost.Bytes) - int(now.Output.Bytes); ends < 0 || ends > notices || toldLost(t, text) != now.Output.Lost.Bytes {
		t.Errorf("%d bytes are in the log, %d told as lost, of %+v", own, toldLost(t, text), now.Output)
	}
}

// toldLost is how many bytes a log says that it lost.
func toldLost(t *testing.T, text string) (sum uint64) {
	t.Helper()
	for line := range strings.Lines(text) {
		var n uint64
		if !strings.HasPrefix(line, "fiefdom: ") {
			continue
		}
		if _, err := fmt.Sscanf(line, "fiefdom: %d bytes", &n); err == nil { // else it is being written
			sum += n
		}
	}
	return sum
}

// What is touched is done: without a signal, without a restart.
func TestTouchLogs(t *testing.T) {
	t.Parallel()
	r := newRealm(t, logsEmperor+"logto = /run/t/emperor.log\ntouch-logrotate = /run/t/rotate-all\n", map[string]string{
		"blog": "[uwsgi]\nlogto = /run/t/blog.log\ntouch-logreopen = /run/t/reopen\ntouch-logrotate = /run/t/rotate\n" +
			"command = /bin/sh -c \"i=0; while sleep 0.05; do i=$((i+1)); echo line $i; done\"\n",
	})
	has := func(path string) func() bool { return func() bool { return r.read(path) != "" } }
	nettest.Eventually(t, patience, "the log is written", has("/run/t/blog.log"))
	s := r.awaitState("blog", emperor.Running)
	if err := os.Rename(r.Path("/run/t/blog.log"), r.Path("/run/t/moved")); err != nil {
		t.Fatal(err)
	}
	r.write("/run/t/reopen", "")
	nettest.Eventually(t, patience, "it is opened anew", has("/run/t/blog.log"))
	r.write("/run/t/rotate", "")
	r.write("/run/t/rotate-all", "")
	for _, path := range []string{"/run/t/blog.log", "/run/t/emperor.log"} {
		nettest.Eventually(t, patience, path+" is rotated", func() bool {
			names, err := filepath.Glob(r.Path(path) + ".*")
			return err == nil && len(names) == 1
		})
	}
	nettest.Eventually(t, patience, "it goes on", has("/run/t/blog.log"))
	if now := r.ps("blog"); now.PID != s.PID {
		t.Errorf("pid %d became %d", s.PID, now.PID)
	}
	r.stop(syscall.SIGTERM)
	text, _, _ := r.logText("/run/t/blog.log")
	text = r.read("/run/t/moved") + text
	for i := 1; strings.Contains(text, fmt.Sprintf("line %d\n", i+1)); i++ {
		if !strings.Contains(text, fmt.Sprintf("line %d\n", i)) {
			t.Errorf("line %d is lost", i)
		}
	}
}

func TestLogsCommand(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor)
	tell := r.fifo("/run/t/go")
	r.write("/run/t/say", "printf 'one\\033[2J\\ntwo\\n'; read x </run/t/go; echo three; exec sleep 1000\n")
	r.drop("blog", "[uwsgi]\ncommand = /bin/sh /run/t/say\n")
	r.start()
	nettest.Eventually(t, patience, "two lines are there", func() bool { return r.mustRun("logs", "blog") == "one\\x1b[2J\ntwo\n" })
	between := time.Now()
	fmt.Fprintln(tell, "go")
	nettest.Eventually(t, patience, "the third came", func() bool { return strings.HasSuffix(r.mustRun("logs", "blog"), "three\n") })
	for args, want := range map[string]string{
		"-n 1": "three\n", "-n 2": "two\nthree\n", "-n 0": "one\\x1b[2J\ntwo\nthree\n", "--since 1h": "one\\x1b[2J\ntwo\nthree\n",
		"--since " + between.Format(time.RFC3339Nano): "three\n", "--since 1ns": "",
	} {
		if got := r.mustRun(append([]string{"logs", "blog"}, strings.Fields(args)...)...); got != want {
			t.Errorf("logs %s: %q, want %q", args, got, want)
		}
	}
	var l emperor.LogLine
	if err := json.Unmarshal([]byte(r.mustRun("logs", "-n", "1", "--json", "blog")), &l); err != nil || l.Text != "three" || time.Since(l.Time) > time.Hour {
		t.Errorf("%+v, %v", l, err)
	}
	for _, args := range [][]string{{"--since", "soon"}, {"-n", "-1"}} {
		if out, code := r.run(append([]string{"logs", "blog"}, args...)...); code != exitUsage {
			t.Errorf("logs %q: exit code %d\n%s", args, code, out)
		}
	}
}
