package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// attached is a process of a vassal by its name.
func attached(s emperor.Status, name string) emperor.ProcessStatus {
	for _, p := range s.Processes {
		if p.Name == name {
			return p
		}
	}
	return emperor.ProcessStatus{}
}

// getPort asks the agent at another port of a vassal.
func (r *realm) getPort(s emperor.Status, port int) string {
	if len(s.Addresses) == 0 {
		return ""
	}
	text, err := bodyOf(clientIn(r.Host).Get(fmt.Sprintf("http://%s:%d/", s.Addresses[0], port)))
	if err != nil {
		return ""
	}
	return text
}

// One jail, several processes: the command and a daemon serve at one address,
// each with a life of its own, and all of them end with the vassal.
func TestAttachedDaemons(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": `[uwsgi]
command = AGENT
attach-daemon = echo hello; exec AGENT 8001
attach-daemon2 = cmd=while :; do sleep 1; done,max_throttle=1
cron = -1 -1 -1 -1 -1 echo "job under $(id -u)"
`})
	whole := func(s emperor.Status) bool {
		echo := attached(s, "echo")
		return s.State == emperor.Running && s.PID != 0 && echo.PID != 0 && r.answers(s.Addresses[0]) &&
			r.getPort(s, 8001) == fmt.Sprintln(r.inner(echo.PID)) && attached(s, "while").PID != 0
	}
	s := r.await("blog", "serves at both ports", whole)
	if pid := r.getPort(s, 8000); pid != fmt.Sprintln(r.inner(s.PID)) {
		t.Errorf("the command answers with pid %q: %+v", pid, s)
	}
	for _, p := range []int{s.PID, attached(s, "echo").PID, attached(s, "while").PID} {
		text := r.proc(p, "status")
		for _, want := range []string{fmt.Sprintf("\nUid:\t%d\t%[1]d\t%[1]d\t%[1]d\n", s.UID), "\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("process %d has not %q:\n%s", p, want, text)
			}
		}
	}
	want := fmt.Sprintf("echo-2 | job under %d\n", s.UID)
	nettest.Eventually(t, patience, "the lines are there", func() bool {
		logs := r.mustRun("logs", "blog")
		return strings.Contains(logs, "echo | hello\n") && strings.Contains(logs, want)
	})
	if log, err := os.ReadFile(r.log); err != nil || !strings.Contains(string(log), "blog | echo | hello\n") {
		t.Error("the emperor's log has not the daemon's line")
	}

	r.kill(attached(s, "echo").PID)
	next := r.await("blog", "has a new daemon", func(n emperor.Status) bool { return whole(n) && attached(n, "echo").PID != attached(s, "echo").PID })
	if next.PID != s.PID || attached(next, "while").PID != attached(s, "while").PID {
		t.Errorf("others were touched: %+v, was %+v", next, s)
	}
	r.kill(next.PID)
	last := r.await("blog", "has a new command", func(n emperor.Status) bool { return whole(n) && n.PID != next.PID })
	if attached(last, "echo").PID != attached(next, "echo").PID || last.Addresses[0] != s.Addresses[0] {
		t.Errorf("others were touched: %+v, was %+v", last, next)
	}

	ps := r.mustRun("ps")
	lines := strings.Split(ps, "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[1], "blog ") || !strings.HasPrefix(lines[2], "  echo ") || !strings.HasPrefix(lines[4], "  echo-2 ") || !strings.Contains(lines[4], "sleeping") {
		t.Errorf("ps:\n%s", ps)
	}
	if out := r.mustRun("status", "blog"); !strings.Contains(out, "daemon: echo, running since") || !strings.Contains(out, "cron: echo-2, sleeping since") {
		t.Errorf("status:\n%s", out)
	}
	if out := r.mustRun("ps", "--json"); !strings.Contains(out, `"kind": "cron"`) {
		t.Errorf("ps --json:\n%s", out)
	}
	r.mustRun("reload", "blog")
	again := r.await("blog", "is all new", whole)
	if again.PID == last.PID || attached(again, "echo").PID == attached(last, "echo").PID {
		t.Errorf("%+v, was %+v", again, last)
	}
	r.stop(syscall.SIGTERM)
}

// The files of uWSGI's document about attached daemons, with a daemon of the
// test in place of theirs: without a command, by pidfile, in namespaces.
func TestAttachedDaemonsAlone(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\nemperor-use-clone = net,pid,fs,uts,ipc\nemperor-cap = sys_admin,setuid,setgid\n")
	r.drop("daemons", `[uwsgi]
master = true
hook-as-root = exec:mount -t tmpfs tmpfs /mnt && echo once >>/run/t/hooks
exec-as-root = mount -t proc proc /proc
smart-attach-daemon = /mnt/smart.pid setsid sh -c 'echo $$ >/mnt/smart.pid; exec sleep 1001' & exit 0
smart-attach-daemon2 = /mnt/smart2.pid exec sleep 1002
attach-daemon2 = cmd=exec sleep 1003,uid=1501,gid=1502,ns_pid=true
attach-control-daemon = exec sleep 1004
unique-cron = -1 -1 -1 -1 -1 ls -d /mnt; until [ -e /mnt/smart.pid ] && [ -e /mnt/smart2.pid ]; do sleep 0.1; done; ls /mnt; exec sleep 1005
`)
	r.start()
	names := []string{"setsid", "sleep", "sleep-2", "sleep-3"} // the job does not run twice in a minute
	whole := func(s emperor.Status) bool {
		for _, name := range names {
			if attached(s, name).PID == 0 || attached(s, name).State != emperor.Running {
				return false
			}
		}
		return s.State == emperor.Running && strings.HasPrefix(r.proc(attached(s, "setsid").PID, "cmdline"), "sleep\x001001")
	}
	s := r.await("daemons", "all run", whole)
	if s.PID != 0 || len(s.Command) != 0 {
		t.Errorf("it has a command: %+v", s)
	}
	text := r.proc(attached(s, "sleep-2").PID, "status")
	for _, want := range []string{`\nUid:\t1501\t`, `\nGid:\t1502\t`, `\nNSpid:\t\d+\t\d+\t\d+\n`} { // in the vassal's, and in its own
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("it has not %q:\n%s", want, text)
		}
	}
	for _, name := range names {
		if text := r.proc(attached(s, name).PID, "status"); !strings.Contains(text, "\nCapBnd:\t00000000002001c0\n") { // and setpcap, as uWSGI
			t.Errorf("%s is not bound by emperor-cap:\n%s", name, text)
		}
	}
	nettest.Eventually(t, patience, "the job has listed the folder of all", func() bool {
		logs := r.mustRun("logs", "daemons") // of the job's one run
		return strings.Contains(logs, "ls | smart.pid\n") && strings.Contains(logs, "ls | smart2.pid\n")
	})

	r.kill(attached(s, "setsid").PID)
	next := r.await("daemons", "follows the next", func(n emperor.Status) bool { return whole(n) && attached(n, "setsid").PID != attached(s, "setsid").PID })
	if attached(next, "sleep").PID != attached(s, "sleep").PID {
		t.Errorf("others were touched: %+v, was %+v", next, s)
	}
	if hooks := r.read("/run/t/hooks"); hooks != "once\n" {
		t.Errorf("hooks ran: %q", hooks)
	}
	r.kill(attached(next, "sleep-3").PID) // the one that the vassal ends with
	last := r.await("daemons", "is all new", func(n emperor.Status) bool {
		return whole(n) && attached(n, "sleep-3").PID != attached(next, "sleep-3").PID
	})
	if attached(last, "sleep").PID == attached(next, "sleep").PID || r.read("/run/t/hooks") != "once\nonce\n" {
		t.Errorf("it did not start anew: %+v, hooks %q", last, r.read("/run/t/hooks"))
	}

	// Nobody dies with the emperor; the next one goes on with all.
	r.die()
	r.start()
	if diff := unlike(last, r.await("daemons", "runs under the next emperor", whole)); diff != "" {
		t.Error(diff)
	}
	for n := range len(names) {
		if got := strings.Count(r.Run(t, "ps", "-eo", "args"), fmt.Sprintf("sleep 100%d\n", n+1)); got != 1 {
			t.Errorf("sleep 100%d runs %d times, want once", n+1, got)
		}
	}
	r.stop(syscall.SIGTERM)
}

// Woken by a connection, the command answers, and its daemon is there; when
// nobody comes any more, both go.
func TestAttachedDaemonsOnDemand(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-directory = /run/t\n")
	r.write("/run/t/web.py", webServer)
	r.drop("blog", "[uwsgi]\ncommand = /usr/bin/python3 /run/t/web.py\nenv = IDLE=0.5\nattach-daemon = echo up; exec sleep 1006\n")
	r.start()
	asleep := func(s emperor.Status) bool { return s.State == emperor.Sleeping && len(s.Processes) == 0 }
	for n := range 2 {
		r.await("blog", "sleeps", asleep)
		if text := r.mustPage("/run/t/blog.socket", "/"); text == "" {
			t.Error("an empty page")
		}
		nettest.Eventually(t, patience, "its daemon is up", func() bool { return strings.Count(r.mustRun("logs", "blog"), "echo | up\n") == n+1 })
	}
	r.await("blog", "sleeps", asleep)
	if s := r.ps("blog"); s.Error != "" || strings.Contains(r.Run(t, "ps", "-eo", "args"), "sleep 1006\n") {
		t.Errorf("its daemon runs on: %+v", s)
	}
	r.stop(syscall.SIGTERM)
}

// Where the app is a uwsgi, its daemons and jobs are its own.
func TestAttachedDaemonsOfAUwsgi(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/app.pl", "sub { [200, [], ['hello']] };\n")
	r.drop("app", "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nmaster = true\nattach-daemon = exec sleep 1001\nattach-daemon2 = cmd=exec sleep 1002,freq=3\ncron2 = minute=-1,unique=1 exec sleep 1003\n")
	r.start()
	s := r.awaitState("app", emperor.Running)
	children := func(name string) bool {
		out, _ := r.Try(t, "ps", "-o", "args", "--ppid", fmt.Sprint(s.PID)) // an error without any
		return strings.Contains(out, name+"\n")
	}
	nettest.Eventually(t, patience, "it has its daemons", func() bool {
		return children("sleep 1001") && children("sleep 1002") && children("sleep 1003")
	})
	if s := r.ps("app"); len(s.Processes) > 0 {
		t.Errorf("they are ours too: %+v", s)
	}
	r.stop(syscall.SIGTERM)
}

func TestAttachedDaemonsBadIni(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": "[uwsgi]\ncommand = AGENT\nattach-daemon2 = cmd=a,colour=red\n"})
	s := r.awaitState("blog", emperor.Invalid)
	if !strings.Contains(s.Error, iniPath("blog")+":3: colour: no such key") {
		t.Errorf("its error is %q", s.Error)
	}
}

// What the options mean, the real uWSGI decides: the same lines, run by it and
// by us, leave the same files.
const judged = `[uwsgi]
attach-daemon = echo "a  b" >OUT/plain; exec sleep 1000
attach-daemon2 = cmd=echo a\,b=c \\d >OUT/comma; exec sleep 1000,freq=3,stopsignal=15
attach-daemon2 = command=pwd >OUT/pwd; exec sleep 1000,chdir=/usr,control=1,max_throttle=5
attach-daemon2 = exec=id >OUT/id; exec sleep 1000,uid=1501,gid=1502
attach-daemon2 = cmd=readlink /proc/self/fd/0 >OUT/stdin; exec sleep 1000
attach-daemon2 = cmd=echo x >>OUT/touched; exec sleep 1000,touch=OUT/touch
smart-attach-daemon2 = OUT/pid,5 echo $$ >OUT/self; cmp OUT/pid OUT/self >OUT/smart && echo same >>OUT/smart; exec sleep 1000
cron = -1 -1 -1 -1 -1 echo cron >OUT/cron
cron2 = minute=-1,hour=-2,hour=-1,week=-1 echo cron2 >OUT/cron2
cron2 = echo bare >OUT/bare
cron = 0 0 31 2 -1 echo never >OUT/never
`

func TestAttachedDaemonsAsUwsgiHasThem(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\n")
	const real, ours = "/run/t/real", "/run/t/ours"
	for _, dir := range []string{real, ours} {
		if err := errors.Join(os.Mkdir(r.Path(dir), 0o777), os.Chmod(r.Path(dir), 0o777)); err != nil {
			t.Fatal(err)
		}
		r.write(dir+"/touch", "")
	}
	r.write("/run/t/judge.ini", strings.ReplaceAll(judged, "OUT", real))
	r.drop("judge", strings.ReplaceAll(judged, "OUT", ours))
	r.start()
	judge := exec.Command("uwsgi-core", "--ini", "/run/t/judge.ini", "--master", "--socket", "/run/t/judge.socket")
	judge.Dir = "/"
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // no pipe: its daemons hold it longer than it lives
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	judge.Stdout, judge.Stderr = log, log
	r.Start(t, judge)

	files := []string{"plain", "comma", "pwd", "id", "stdin", "touched", "smart", "cron", "cron2", "bare"}
	for _, name := range files {
		var is, want string
		nettest.Eventually(t, patience, name+" is there", func() bool {
			is, want = r.read(ours+"/"+name), r.read(real+"/"+name)
			return strings.HasSuffix(is, "\n") && strings.HasSuffix(want, "\n")
		})
		if is != want {
			t.Errorf("%s: ours %q, the real one's %q", name, is, want)
		}
	}
	for _, dir := range []string{real, ours} {
		r.write(dir+"/touch", "again")
		nettest.Eventually(t, patience, "the touched daemon starts again", func() bool { return r.read(dir+"/touched") == "x\nx\n" })
		if never := r.read(dir + "/never"); never != "" {
			t.Errorf("a job ran on a day that is none: %q", never)
		}
	}
	if err := judge.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = judge.Wait()                                                  // of its exit code nobody thinks here
	r.Run(t, "kill", "-KILL", strings.TrimSpace(r.read(real+"/pid"))) // one of its daemons outlives it
	r.stop(syscall.SIGTERM)
}
