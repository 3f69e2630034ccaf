package main

import (
	"syscall"
	"testing"

	"fiefdom/emperor"
)

// printsName is an app that says its name and stays.
const printsName = "command = /bin/sh -c 'echo I am %n; exec sleep 1000'\n"

// Emperor, and the monitors of ImperialMonitors that need no server.
func TestDocumentEmperor(t *testing.T) {
	keep(t, []promise{
		{
			what: "a new file spawns, a touch reloads, a removal stops, a death respawns",
			acts: []act{
				writes("vassals/app.ini", "[uwsgi]\n"+printsName),
				writes("vassals/app.skel", "[uwsgi]\n"+printsName),
				says("app", "I am app"),
				runs("app"),
				touches("app"),
				anew("app"),
				says("app", "I am app"),
				dies("app"),
				anew("app"),
				says("app", "I am app"),
				does("ln -s app.skel vassals/app1.ini; ln -s app.skel vassals/app2.ini"),
				says("app1", "I am app1"),
				says("app2", "I am app2"),
				removes("app"),
				runs("app1", "app2"),
				prints("ps -e -o args= | grep -c '^sleep 1000'", "2\n"),
			},
		},
		{
			what:    "several monitors, by scheme and by pattern",
			emperor: "[uwsgi]\nemperor = /run/t/vassals\nemperor = dir:///run/t/more\nemperor = /run/t/apps/app*/app*.*\nemperor = glob:///run/t/domains/*/conf/site-*.ini\nemperor-freq = 200ms\n",
			before:  "mkdir -p more apps/app1 apps/app2 domains/blog/conf domains/shop/conf",
			files: map[string]string{
				"vassals/one.ini":                "[uwsgi]\n" + printsName,
				"more/two.ini":                   "[uwsgi]\n" + printsName,
				"apps/app1/app1.ini":             "[uwsgi]\n" + printsName,
				"apps/app1/app1.txt":             "",
				"domains/blog/conf/site-a.ini":   "[uwsgi]\n" + printsName,
				"domains/blog/conf/other-b.ini":  "[uwsgi]\n" + printsName,
				"domains/shop/conf/notes-on.txt": "",
			},
			acts: []act{
				runs("one", "two", "app1", "site-a"),
				gone("other-b"),
				writes("apps/app2/app2.ini", "[uwsgi]\n"+printsName),
				writes("domains/shop/conf/site-b.ini", "[uwsgi]\n"+printsName),
				runs("app2", "site-b"),
				does("rm -r domains/blog; touch more/two.ini"),
				gone("site-a"),
				anew("two"),
			},
		},
		{
			what: "vassals start in the folder that the emperor watches",
			files: map[string]string{
				"vassals/here.ini": "[uwsgi]\ncommand = /bin/sh -c 'pwd; exec sleep 1000'\n",
			},
			acts: []act{says("here", "/run/t/vassals")},
		},
		{
			what:    "vassals in namespaces of their own, one with a hostname and a /proc to itself",
			emperor: plainEmperor + "emperor-use-clone = fs,ipc,pid,uts\n",
			before: "echo foobar:x:1501:1501::/nonexistent:/bin/false >>/etc/passwd; echo foobar:x:1501: >>/etc/group\n" +
				"mkdir -m 777 tmp; hostname >hostname",
			files: map[string]string{
				"myapp.pl": perlHello,
				"vassals/jailed.ini": "[uwsgi]\nplugin = psgi\n; set the hostname\nexec-as-root = hostname foobar\n; umount /proc and remount to hide processes\nexec-as-root = umount /proc\nexec-as-root = mount -t proc none /proc\n" +
					"; drop privileges\nuid = foobar\ngid = foobar\n; bind to the socket\nsocket = /run/t/tmp/myapp.socket\nchmod-socket = 666\npsgi = /run/t/myapp.pl\n",
				"vassals/other.ini": "[uwsgi]\ncommand = sleep 1000\n",
			},
			acts: []act{
				serves("/run/t/tmp/myapp.socket", "Hello World"),
				runs("jailed", "other"),
				inside("jailed", "hostname; pgrep -c sleep; pgrep -c uwsgi; ps -e -o uid= | sort -u | xargs", "foobar\n0\n2\n0 1501\n"),
				prints("hostname | cmp - hostname; ps -e -o args= | grep -c '^sleep 1000'", "1\n"),
				touches("jailed"),
				serves("/run/t/tmp/myapp.socket", "Hello World"),
			},
		},
		{
			what:   "other programs as vassals, with their own arguments",
			before: "printf '#!/bin/sh\\necho \"$# arguments: $1, $2\"; exec sleep 1000\\n' >nginx; chmod 755 nginx",
			files: map[string]string{
				"vassals/nginx.ini": "[uwsgi]\nprivileged-binary-patch-arg = /run/t/nginx -g \"daemon off;\"\n",
				"vassals/plain.ini": "[uwsgi]\nuid = 1000\ngid = 1000\nunprivileged-binary-patch = /run/t/nginx\n",
				"vassals/id.ini":    "[uwsgi]\nuid = 1000\ngid = 1000\nunprivileged-binary-patch-arg = /bin/sh -c 'id -u; exec sleep 1000'\n",
			},
			acts: []act{
				says("nginx", "2 arguments: -g, daemon off;"),
				says("plain", "2 arguments: --ini, /run/t/vassals/plain.ini"),
				says("id", "1000"),
			},
		},
		{
			what: "a vassal is loyal as soon as it manages a request",
			files: map[string]string{
				"app.pl":            perlHello,
				"vassals/loyal.ini": "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nsocket = /run/t/loyal.socket\n",
			},
			acts: []act{
				runs("loyal"),
				serves("/run/t/loyal.socket", "Hello World"),
				loyal("loyal"),
				dies("loyal"), // and is back at once
				anew("loyal"),
				serves("/run/t/loyal.socket", "Hello World"),
			},
		},
		{
			what:    "a vassal that dies without having been loyal has to wait, longer each time",
			emperor: plainEmperor + "emperor-throttle = 200\nemperor-max-throttle = 3600000\n",
			files: map[string]string{
				"vassals/bad.ini": "[uwsgi]\ncommand = /bin/sh -c 'echo try; test -e /run/t/good && exec sleep 1000; exit 1'\n",
			},
			acts: []act{
				says("bad", "try", "try", "try", "try"),
				is("bad", emperor.Backoff, "exit code 1"),
				writes("good", ""),
				touches("bad"),
				runs("bad"),
			},
		},
		{
			what:    "a vassal whose heartbeats cease is started anew",
			emperor: plainEmperor + "emperor-required-heartbeat = 2\n",
			files: map[string]string{
				"app.pl":           perlHello,
				"vassals/hung.ini": "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nsocket = /run/t/hung.socket\nmaster = true\nprocesses = 1\nheartbeat = 1\n",
			},
			acts: []act{
				serves("/run/t/hung.socket", "Hello World"),
				runs("hung"),
				does("pkill -STOP -x uwsgi"),
				anew("hung"),
				serves("/run/t/hung.socket", "Hello World"),
			},
		},
		{
			what:    "in tyrant mode a vassal is the owner of its file",
			emperor: plainEmperor + "emperor-tyrant = true\nemperor-freq = 200ms\n",
			before: "mkdir -p vassals; for f in mine theirs roots; do\n" +
				"printf \"[uwsgi]\\ncommand = /bin/sh -c 'id -u; id -g; exec sleep 1000'\\n\" >vassals/$f.ini; done\n" +
				"chown 2001:2002 vassals/mine.ini; chown 2003:2003 vassals/theirs.ini",
			acts: []act{
				says("mine", "2001", "2002"),
				says("theirs", "2003", "2003"),
				runs("mine", "theirs"),
				is("roots", emperor.Invalid, "root"),
				does("chown 2004:2004 vassals/mine.ini"),
				says("mine", "2004", "2004"),
				same("theirs"),
			},
		},
		{
			what: "signals: USR1 tells, HUP reloads all, TERM is the end of all",
			files: map[string]string{
				"vassals/one.ini": "[uwsgi]\n" + printsName,
				"vassals/two.ini": "[uwsgi]\n" + printsName,
			},
			acts: []act{
				runs("one", "two"),
				signals(syscall.SIGHUP),
				anew("one", "two"),
				says("one", "I am one", "I am one"),
				func(s *witness) { // nothing is left: else the test fails
					s.stop(syscall.SIGTERM)
					s.shows("0\n", "sh", "-c", "ps -e -o args= | grep -c '^sleep 1000'")
					s.start()
				},
				runs("one", "two"),
			},
		},
	})
}
