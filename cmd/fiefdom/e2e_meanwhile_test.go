package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// meanwhile is what happens to a vassal while there is no emperor, and how the
// next one finds it.
var meanwhile = []struct {
	name, ini string
	ready     string // a text of the log that says that it has begun
	happens   func(r *realm, before emperor.Status)
	finds     func(r *realm, before emperor.Status)
}{
	{
		name: "killed", ini: agentIni,
		happens: func(r *realm, before emperor.Status) { r.kill(before.PID) },
		finds: func(r *realm, before emperor.Status) {
			r.await("killed", "is started again", func(s emperor.Status) bool {
				return s.State == emperor.Running && s.PID != before.PID && s.Restarts == 1
			})
			r.logged(`vassal=killed reason="killed by SIGKILL"`, 1)
		},
	},
	{
		name: "exits", ini: "[uwsgi]\ncommand = /bin/sh -c 'echo begun; while ! test -e /run/t/dead; do sleep 0.05; done; echo last words; exit 3'\nbind = /run/t:ro\n", ready: "exits | begun",
		happens: func(r *realm, before emperor.Status) {
			nettest.Eventually(r.t, patience, "it exits", func() bool { return r.read(fmt.Sprintf("/proc/%d/stat", before.PID)) == "" })
		},
		finds: func(r *realm, before emperor.Status) {
			r.logged(`vassal=exits reason="exit code 3"`, 1)
			r.logged("exits | last words", 1)
		},
	},
	{
		name: "changed", ini: agentIni,
		happens: func(r *realm, _ emperor.Status) { r.drop("changed", agentIni+"env = A=1\n") },
		finds: func(r *realm, before emperor.Status) {
			s := r.await("changed", "is a new process", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != before.PID })
			if env := r.proc(s.PID, "environ"); !strings.Contains(env, "A=1") || s.Addresses[0] != before.Addresses[0] {
				r.t.Errorf("changed is %+v with %q", s, env)
			}
		},
	},
	{
		name: "removed", ini: agentIni,
		happens: func(r *realm, _ emperor.Status) { r.remove("removed") },
		finds: func(r *realm, before emperor.Status) {
			r.await("removed", "is gone", func(s emperor.Status) bool { return s.Name == "" })
			if r.read(fmt.Sprintf("/proc/%d/stat", before.PID)) != "" {
				r.t.Error("removed: its process lives")
			}
		},
	},
	{
		name: "broken", ini: agentIni,
		happens: func(r *realm, _ emperor.Status) { r.drop("broken", agentIni+"umask = x\n") },
		finds: func(r *realm, before emperor.Status) {
			s := r.await("broken", "has an error", func(s emperor.Status) bool { return strings.Contains(s.Error, "umask") })
			if s.State != emperor.Running || s.PID != before.PID {
				r.t.Errorf("broken: %+v, was %+v", s, before)
			}
		},
	},
	{
		name: "talks", ini: "[uwsgi]\ncommand = /bin/sh -c 'echo begun; while ! test -e /run/t/dead; do sleep 0.05; done; echo still here; exec sleep 1000'\nbind = /run/t:ro\n", ready: "talks | begun",
		finds: func(r *realm, before emperor.Status) {
			r.logged("talks | still here", 1)
			if diff := unlike(before, r.ps("talks")); diff != "" {
				r.t.Errorf("talks: %s", diff)
			}
		},
	},
	{
		name: "logs", ini: "[uwsgi]\nlogto = /run/t/own.log\ncommand = /bin/sh -c 'echo begun; while ! test -e /run/t/dead; do sleep 0.05; done; echo still here; exec sleep 1000'\nbind = /run/t:ro\n",
		finds: func(r *realm, before emperor.Status) {
			nettest.Eventually(r.t, patience, "logto goes on", func() bool { return r.read("/run/t/own.log") == "begun\nstill here\n" })
			if diff := unlike(before, r.ps("logs")); diff != "" {
				r.t.Errorf("logs: %s", diff)
			}
		},
	},
	{
		name: "speaks", ini: "[uwsgi]\nemperor-protocol = true\ncommand = python3 /run/t/snake.py\nbind = /run/t:ro\n", ready: `msg="vassal is loyal" vassal=speaks`,
		finds: func(r *realm, before emperor.Status) {
			if s := r.ps("speaks"); unlike(before, s) != "" || !s.Loyal || !s.Accepting {
				r.t.Errorf("speaks: %s; %+v", unlike(before, s), s)
			}
			r.Run(r.t, "touch", iniPath("speaks"))
			r.logged("speaks | reloaded", 1)
			if s := r.awaitState("speaks", emperor.Running); s.PID != before.PID {
				r.t.Errorf("speaks: reloaded with pid %d, was %d", s.PID, before.PID)
			}
		},
	},
	{
		name: "touched", ini: "[uwsgi]\nemperor-protocol = true\ncommand = python3 /run/t/snake.py\nbind = /run/t:ro\n", ready: `msg="vassal is loyal" vassal=touched`,
		happens: func(r *realm, _ emperor.Status) { r.Run(r.t, "touch", iniPath("touched")) },
		finds: func(r *realm, before emperor.Status) {
			r.logged("touched | reloaded", 1)
			if s := r.awaitState("touched", emperor.Running); s.PID != before.PID {
				r.t.Errorf("touched: pid %d, was %d", s.PID, before.PID)
			}
		},
	},
	{
		name: "stopped", ini: agentIni,
		finds: func(r *realm, before emperor.Status) {
			if diff := unlike(before, r.ps("stopped")); diff != "" || before.State != emperor.Stopped {
				r.t.Errorf("stopped: %+v, %s", before, diff)
			}
		},
	},
	{
		name: "sick", ini: "[uwsgi]\ncommand = false\n",
		finds: func(r *realm, before emperor.Status) {
			if s := r.ps("sick"); s.Restarts < before.Restarts || s.LastEnd != "exit code 1" { // it may run just now
				r.t.Errorf("sick: %+v, was %+v", s, before)
			}
		},
	},
	{
		name: "jailless", ini: "[uwsgi]\nemperor-protocol = false\nsetns = /run/t/ns\ncommand = sleep 1000\n",
		finds: func(r *realm, before emperor.Status) {
			if diff := unlike(before, r.ps("jailless")); diff != "" {
				r.t.Errorf("jailless: %s", diff)
			}
		},
	},
	{
		name: "served", ini: agentIni + "setns-socket = /run/t/ns\n",
		finds: func(r *realm, before emperor.Status) {
			if diff := unlike(before, r.ps("served")); diff != "" {
				r.t.Errorf("served: %s", diff)
			}
			pid := r.ps("jailless").PID
			r.mustRun("restart", "jailless")
			if s := r.awaitState("jailless", emperor.Running); s.PID == pid {
				r.t.Error("nobody could join again")
			}
		},
	},
	{
		name: "crew", ini: "[uwsgi]\ncommand = AGENT\nattach-daemon = exec sleep 1009\nattach-daemon = exec sleep 1010\nsmart-attach-daemon = /run/t/open/smart.pid sleep 1011 & echo $! > /run/t/open/smart.pid\nwritable = /run/t/open\n",
		happens: func(r *realm, before emperor.Status) { r.kill(attached(before, "sleep-2").PID) },
		finds: func(r *realm, before emperor.Status) {
			now := r.await("crew", "has its daemon again", func(s emperor.Status) bool {
				p := attached(s, "sleep-2")
				return p.State == emperor.Running && p.PID != attached(before, "sleep-2").PID && p.Restarts == 1
			})
			for _, name := range []string{"sleep", "sleep-3"} {
				if p, was := attached(now, name), attached(before, name); p.PID != was.PID || p.Restarts != was.Restarts || !p.Since.Equal(was.Since) {
					r.t.Errorf("crew: %+v, was %+v", p, was)
				}
			}
			if now.PID != before.PID {
				r.t.Errorf("crew: command %d, was %d", now.PID, before.PID)
			}
		},
	},
}

// What happens while there is no emperor the next one finds and does.
func TestWhileThereIsNoEmperor(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/snake.py", speaker)
	r.Run(t, "mkdir", "-m", "777", "/run/t/open")
	for _, m := range meanwhile {
		r.drop(m.name, m.ini)
	}
	r.start()
	before := map[string]emperor.Status{}
	for _, m := range meanwhile {
		if m.ready != "" {
			r.logged(m.ready, 1)
		}
		switch m.name {
		case "sick":
			before[m.name] = r.await("sick", "has died", func(s emperor.Status) bool { return s.Restarts > 0 })
		case "logs": // what is read from the pipe, and not in the file yet, dies with the emperor
			nettest.Eventually(t, patience, "its first line is in its file", func() bool { return r.read("/run/t/own.log") == "begun\n" })
			before[m.name] = r.awaitState("logs", emperor.Running)
		case "stopped":
			r.awaitState("stopped", emperor.Running)
			r.mustRun("stop", "stopped")
			before[m.name] = r.ps("stopped")
		case "crew":
			before[m.name] = r.await("crew", "is whole", func(s emperor.Status) bool {
				return s.State == emperor.Running && attached(s, "sleep").PID != 0 && attached(s, "sleep-2").PID != 0 && attached(s, "sleep-3").PID != 0 &&
					strings.TrimSpace(r.read("/run/t/open/smart.pid")) == r.inner(attached(s, "sleep-3").PID)
			})
		default:
			before[m.name] = r.awaitState(m.name, emperor.Running)
		}
	}
	r.die()
	r.write("/run/t/dead", "")
	for _, m := range meanwhile {
		if m.happens != nil {
			m.happens(r, before[m.name])
		}
	}
	r.drop("fresh", agentIni)
	r.start()
	r.reach("fresh")
	for _, m := range meanwhile {
		m.finds(r, before[m.name])
	}
	r.stop(syscall.SIGTERM)
}
