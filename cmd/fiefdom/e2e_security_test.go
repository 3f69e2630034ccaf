package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/exposure"
	"fiefdom/internal/nettest"
)

// security asks for the report of one vassal.
func (r *realm) security(vassal string) (report exposure.Report) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.mustRun("security", "--json", vassal)), &report); err != nil {
		r.t.Fatal(err)
	}
	return report
}

func notWell(report *exposure.Report) (names []string) {
	for _, row := range report.Worst() {
		names = append(names, row.Name)
	}
	return names
}

// The score falls from level to level, and what is said of each level is what the
// kernel has.
func TestSecurityOfLevels(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	levels := []string{"none", "compat", "default", "strict"}
	for _, level := range levels {
		r.drop(level, agentIni+"listen-ports = 8000\nconfine = "+level+"\n")
	}
	r.drop("down", agentIni)
	r.start()
	for _, level := range levels {
		r.reach(level)
	}
	r.reach("down")
	before := exposure.Report{Score: 10}
	for _, level := range levels {
		report := r.security(level)
		if report.Score >= before.Score || report.Level != level || !report.Running {
			t.Errorf("%s has %.1f, and %s %.1f", level, report.Score, before.Level, before.Score)
		}
		t.Logf("%s: %.1f %s, not well: %q", level, report.Score, report.Word, notWell(&report))
		before = report
	}
	for _, name := range []string{"user", "capabilities", "network", "isolate"} {
		if none := r.security("none"); slices.Contains(notWell(&none), name) {
			t.Errorf("row %s of none: %q", name, notWell(&none))
		}
	}
	// What an ini asks for is what it gets.
	for _, level := range append(levels, "down") {
		running := r.security(level)
		r.mustRun("stop", level)
		if down := r.security(level); down.Running || !slices.Equal(notWell(&down), notWell(&running)) || down.Score != running.Score {
			t.Errorf("when %s runs %q, when it does not %q", level, notWell(&running), notWell(&down))
		}
	}
	list := r.mustRun("security")
	for _, want := range []string{"NAME", "none ", "strict ", "down "} {
		if !strings.Contains(list, want) {
			t.Errorf("the list has no %q:\n%s", want, list)
		}
	}
	if out := r.mustRun("security", "default"); !strings.Contains(out, "✓ ") || !strings.Contains(out, "→ limit-memory = 512M\n") || !strings.Contains(out, "(confine = default, as its ini has it: it does not run)\n") {
		t.Errorf("of default:\n%s", out)
	}
	file := r.mustRun("security", "--config", realmDir+"/emperor.ini", iniPath("compat"))
	if !strings.Contains(file, "confine = compat, as its ini has it") {
		t.Errorf("of a file:\n%s", file)
	}
	if out, code := r.run("security", "nobody"); code != exitNotFound {
		t.Errorf("of nobody: exit code %d\n%s", code, out)
	}
}

// What is judged is what is so, of vassals of every kind.
func TestSecurityOfKinds(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", `[uwsgi]
emperor = /run/t/vassals
tuntap-router = fief0 /run/fiefdom/emperor/fief0.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router = open0 /run/fiefdom/emperor/open0.sock
tuntap-router-address = 10.8.0.1/16
tuntap-router-isolate = off
`)
	r.Run(t, "sh", "-ec", "mkdir -p /var/lib/apps/own /var/lib/apps/roots; printf '#!/bin/sh\nexec sleep 4000\n' >/var/lib/apps/own/app.sh; chmod 755 /var/lib/apps/own/app.sh; cp -p /var/lib/apps/own/app.sh /var/lib/apps/roots/; chown -R 61300:61300 /var/lib/apps/own")
	const sleeps, own = "command = sleep 4000\n", "command = /var/lib/apps/own/app.sh\nchdir = /var/lib/apps/own\nuid = 61300\nnetwork = fief0\n"
	kinds := []struct {
		name, ini string
		bad, well []string // among others
		advice    string   // on the first that is bad
	}{
		{"uwsgis-way", sleeps, []string{"user", "capabilities", "network", "isolate", "processes", "system", "setuid", "own-code"}, []string{"secrets"}, "confine = default"},
		{"confined", sleeps + "confine = default\n", []string{"network"}, []string{"user", "capabilities", "processes", "system", "setuid"}, "network = fief0"},
		{"alone", sleeps + "network = none\n", []string{"cpu"}, []string{"network", "isolate", "outside", "user"}, "limit-cpu = 1"},
		{"on-host", sleeps + "network = host\n", []string{"network", "isolate", "outside"}, []string{"user", "calls", "processes", "run"}, "network = fief0"},
		{"in-the-open", sleeps + "network = open0\n", []string{"isolate", "outside"}, []string{"network"}, "in the emperor's ini: tuntap-router-isolate = on (after the tuntap-router of open0)"},
		{"twin", sleeps + "network = fief0\nuid = 61301\n", []string{"own-user"}, []string{"isolate"}, "without uid; gid"},
		{"other-twin", sleeps + "network = fief0\nuid = 61301\nconfine = compat\n", []string{"own-user"}, nil, "without uid; gid"},
		{"its-own-code", own + "writable = /var/lib/apps/own\n", []string{"own-code"}, []string{"system"}, "without writable = /var/lib/apps/own"},
		{"its-code-kept", own, nil, []string{"own-code"}, ""},
		{"roots-code", strings.ReplaceAll(own, "/own", "/roots") + "confine = compat\n", nil, []string{"own-code"}, ""},
		{"its-code-open", own + "confine = compat\n", []string{"own-code"}, nil, "confine = default"},
		{"daemons", "attach-daemon = sleep 4000\nnetwork = fief0\n", []string{"cpu"}, []string{"user", "calls", "processes"}, "limit-cpu = 1"},
		{"with-a-key", sleeps + "network = fief0\nenv = DATABASE_URL=postgres://blog:hunter2@10.9.0.7/blog\n", []string{"secrets"}, nil, "run: chmod o-r " + iniPath("with-a-key")},
		{"with-a-path", sleeps + "network = fief0\nenv = DB_PASSWORD_FILE=/run/secrets/db\n", nil, []string{"secrets"}, ""},
		{"ruled", sleeps + "network = fief0\ntuntap-device-rule = out any 10.9.0.9 allow\ntuntap-device-rule = out any any reject\n", nil, []string{"outside", "isolate"}, ""},
	}
	for _, k := range kinds {
		r.drop(k.name, "[uwsgi]\n"+k.ini)
	}
	r.start()
	for _, k := range kinds {
		r.awaitState(k.name, emperor.Running)
	}
	for _, k := range kinds {
		report := r.security(k.name)
		bad := notWell(&report)
		for _, name := range k.bad {
			if !slices.Contains(bad, name) {
				t.Errorf("%s: %s is well", k.name, name)
			}
		}
		for _, name := range k.well {
			if slices.Contains(bad, name) {
				t.Errorf("%s: %s is not well", k.name, name)
			}
		}
		for _, row := range report.Rows {
			if len(k.bad) > 0 && row.Name == k.bad[0] && row.Advice != nil && !strings.Contains(row.Advice.String(), k.advice) {
				t.Errorf("%s: %s: advice %q, want %q", k.name, row.Name, row.Advice, k.advice)
			}
		}
		if !report.Running {
			t.Errorf("%s does not run", k.name)
		}
		t.Logf("%s: %.1f %s", k.name, report.Score, report.Word)
	}
	if out := r.mustRun("security", "with-a-key"); strings.Contains(out, "hunter2") || !strings.Contains(out, "env DATABASE_URL") {
		t.Errorf("a secret is told, or not named:\n%s", out)
	}
}

// Whoever does what is advised has the row turned, until all is well.
func TestSecurityAdviceHelps(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-ec", "mkdir -p /var/lib/apps/blog; cp /bin/true /var/lib/apps/blog/app.sh; chown -R 61300 /var/lib/apps/blog")
	lines := []string{
		"[uwsgi]", "command = AGENT", "confine = none", "uid = root", "cap = net_admin", "env = DB_PASSWORD=x", "exec-as-root = true",
		"publish = 80:8000", "bind = /run/docker.sock:ro",
	}
	r.write("/run/docker.sock", "")
	r.drop("blog", strings.Join(lines, "\n")+"\n")
	r.start()
	r.awaitState("blog", emperor.Running)
	var commands []string
	for range 40 {
		var report exposure.Report
		nettest.Eventually(t, patience, "it runs", func() bool {
			report = r.security("blog")
			return report.Running
		})
		worst := report.Worst()
		if len(worst) == 0 {
			break
		}
		row := worst[0]
		lines, commands = follow(lines, row.Advice), append(commands, row.Advice.Run...)
		r.drop("blog", strings.Join(lines, "\n")+"\n")
		for _, command := range commands { // a new file has the modes of a new file
			r.Run(t, "sh", "-ec", command)
		}
		var now exposure.Report
		nettest.Eventually(t, patience, row.Name+" is well after "+row.Advice.String(), func() bool {
			out, code := r.run("security", "--json", "blog")
			return code == exitOK && json.Unmarshal([]byte(out), &now) == nil && now.Running && !slices.Contains(notWell(&now), row.Name)
		})
		if now.Score >= report.Score {
			t.Errorf("%s: the score was %.1f and is %.1f", row.Name, report.Score, now.Score)
		}
		t.Logf("%-16s %-50s %.1f", row.Name, row.Advice, now.Score)
	}
	if report := r.security("blog"); report.Score != 0 || report.Word != "safe" {
		t.Errorf("at last %.1f %s: %q\n%s", report.Score, report.Word, notWell(&report), strings.Join(lines, "\n"))
	}
}

// follow does with the lines of an ini what is advised.
func follow(lines []string, a *exposure.Advice) []string {
	key := func(line string) string {
		name, _, _ := strings.Cut(line, " ")
		return name
	}
	gone := func(line string) bool {
		return slices.ContainsFunc(a.Remove, func(r string) bool {
			return line == r || key(line) == key(r) && (!strings.Contains(r, "=") || strings.HasPrefix(r, "publish"))
		}) || slices.ContainsFunc(a.Write, func(w string) bool { return key(line) == key(w) })
	}
	lines = slices.DeleteFunc(slices.Clone(lines), gone)
	return append(lines, a.Write...)
}
