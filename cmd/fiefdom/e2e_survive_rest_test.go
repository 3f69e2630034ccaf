package main

import (
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What an emperor does for his vassals beside running them, the next one goes on
// with: limits, logs, commands in jails, checks, and what apps say.
func TestAdoptedVassalsAreServed(t *testing.T) {
	t.Parallel()
	needLimits(t)
	nettest.Program(t, "systemd-notify") // speaks for the app
	const limited = "[uwsgi]\ncommand = sh -c 'while read word; do echo heard $word; systemd-notify STATUS=\"$word\"; done < /run/t/words; exec sleep 1000'\n" +
		"env = WHERE=%n\nbind = /run/t\nready = delay:1ms\nwatchdog = 1h\nlogto = /run/t/log/blog\nlog-maxsize = 64K\nlimit-pids = "
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"limit-pids = 100\n")
	r.Run(t, "mkdir", "-m", "777", "/run/t/log")
	words := r.fifo("/run/t/words")
	r.Run(t, "chmod", "666", "/run/t/words")
	r.drop("blog", limited+"40\n")
	r.drop("sick", agentIni+"health = exec:test ! -e /run/t/sick\nbind = /run/t:ro\nhealth-interval = 1\nhealth-count = 1\n")
	r.start()
	before := map[string]emperor.Status{"blog": r.awaitState("blog", emperor.Running), "sick": r.reach("sick")}
	say := func(word string) {
		if _, err := words.WriteString(word + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	say("first")
	r.await("blog", "says its first word", func(s emperor.Status) bool { return s.Says == "first" })
	r.die()
	say("meanwhile")
	r.write("/run/t/emperor.ini", nativeNetwork+"limit-pids = 200\n")
	r.start()
	for name, s := range before {
		if why := unlike(s, r.awaitState(name, emperor.Running)); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
	r.await("blog", "is heard though nobody listened", func(s emperor.Status) bool { return s.Says == "meanwhile" })
	say("again")
	r.await("blog", "is heard", func(s emperor.Status) bool { return s.Says == "again" })
	if out := r.mustRun("exec", "blog", "--", "sh", "-c", "echo $WHERE"); out != "blog\n" {
		t.Errorf("a command in its jail says %q", out)
	}
	nettest.Eventually(t, patience, "its log has all", func() bool {
		text, _, _ := r.logText("/run/t/log/blog")
		return strings.Contains(text, "heard first") && strings.Contains(text, "heard meanwhile") && strings.Contains(text, "heard again")
	})
	r.pidsMax(r.ps("blog"), 40)
	sick := r.ps("sick")
	nettest.Eventually(t, patience, "the default of the next emperor is in force", func() bool { return r.pidsAre(sick, 200) })
	r.drop("blog", limited+"50\n")
	nettest.Eventually(t, patience, "the limit is changed", func() bool { return r.pidsAre(before["blog"], 50) })
	if s := r.ps("blog"); s.PID != before["blog"].PID || s.PIDs == 0 {
		t.Errorf("after the change of its limit it is %d with %d processes, was %d", s.PID, s.PIDs, before["blog"].PID)
	}
	r.write("/run/t/sick", "")
	r.await("sick", "is found unhealthy", func(s emperor.Status) bool { return strings.Contains(s.LastEnd, "unhealthy") })
	r.stop(syscall.SIGTERM)
}

// What a killed emperor has left is ended by a word, whatever his ini is by now;
// one who runs is left alone.
func TestEndOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, survivors)
	before := r.all()
	if out, code := r.run("end", r.name); code != exitFailed || !strings.Contains(out, number(r.cmdPID())) {
		t.Errorf("end beside an emperor: %d, %q", code, out)
	}
	r.same(before)
	r.die()
	r.write(realmDir+"/emperor.ini", "[uwsgi]\nemperor-frq = 3\n")
	r.mustRun("end", r.name)
	r.checkNothingLeft()
	if out, code := r.run("end", r.name); code != exitNotFound {
		t.Errorf("end of nothing: %d, %q", code, out)
	}
	if out, code := r.run("end", "../run"); code != exitUsage {
		t.Errorf("end of no instance: %d, %q", code, out)
	}
}
