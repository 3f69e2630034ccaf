package main

import (
	"syscall"
	"testing"

	"fiefdom/emperor"
)

// printsName is an app that says its name and stays.
const printsName = "command = /bin/sh -c 'echo I am %n; exec sleep 1000'\n"

// siteApp is an app of the skeleton; it tells its settings.
const siteApp = "import os\ndef application(env, start_response):\n    start_response('200 OK', [])\n    return [os.environ['SETTINGS'].encode()]\n"

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
			emperor: "[uwsgi]\nemperor = /run/t/vassals\nemperor = dir:///run/t/more\nemperor = /run/t/apps/app*/app*.*\nemperor = glob:///run/t/domains/*/conf/site-*.ini\nemperor = /run/t/accounts/*/uwsgi.ini\nemperor-freq = 200ms\n",
			before:  "mkdir -p more apps/app1 apps/app2 domains/blog/conf domains/shop/conf accounts/ann accounts/bob",
			files: map[string]string{
				"vassals/one.ini":                "[uwsgi]\n" + printsName,
				"accounts/ann/uwsgi.ini":         "[uwsgi]\n" + printsName,
				"accounts/bob/uwsgi.ini":         "[uwsgi]\n" + printsName,
				"more/two.ini":                   "[uwsgi]\n" + printsName,
				"apps/app1/app1.ini":             "[uwsgi]\n" + printsName,
				"apps/app1/app1.txt":             "",
				"domains/blog/conf/site-a.ini":   "[uwsgi]\n" + printsName,
				"domains/blog/conf/other-b.ini":  "[uwsgi]\n" + printsName,
				"domains/shop/conf/notes-on.txt": "",
			},
			acts: []act{
				runs("one", "two", "app1", "site-a", "ann", "bob"),
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
			what:    "a skeleton for apps that differ in their names",
			before:  "mkdir apps sockets apps/app1 apps/app2; ln -s app.skel apps/app1.ini; ln -s app.skel apps/app2.ini",
			emperor: "[uwsgi]\nemperor = /run/t/apps\n",
			files: map[string]string{
				"apps/app.skel":      "[uwsgi]\nplugin = python3\nchdir = /run/t/apps/%n\nmaster = true\nthreads = 2\nhttp-socket = /run/t/sockets/%n.sock\nenv = SETTINGS=%n.settings\nmodule = myapp:application\n",
				"apps/app1/myapp.py": siteApp,
				"apps/app2/myapp.py": siteApp,
			},
			acts: []act{
				prints("curl -s --unix-socket sockets/app1.sock http://app1/", "app1.settings"),
				prints("curl -s --unix-socket sockets/app2.sock http://app2/", "app2.settings"),
			},
		},
		{
			what:    "options for all vassals, by the environment and by a file",
			emperor: plainEmperor + "vassals-include = /run/t/vassals-default.ini\n",
			environ: []string{"UWSGI_VASSAL_SOCKET=/run/t/sockets/%n.sock"},
			before:  "mkdir sockets",
			files: map[string]string{
				"app.pl":              perlHello,
				"vassals-default.ini": "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nsocket = /run/t/sockets/by-name-%(vassal_name).sock\nprocname = %n of %(vassal_name)\nauto-procname = true\n",
				"vassals/one.ini":     "[uwsgi]\nvassal_name = %n\n",
				"vassals/two.ini":     "[uwsgi]\nvassal_name = %n\n",
			},
			acts: []act{
				serves("/run/t/sockets/one.sock", "Hello World"),
				serves("/run/t/sockets/by-name-one.sock", "Hello World"),
				serves("/run/t/sockets/two.sock", "Hello World"),
				serves("/run/t/sockets/by-name-two.sock", "Hello World"),
			},
		},
		{
			what:    "statistics at a TCP address, as JSON",
			emperor: plainEmperor + "emperor-stats = 127.0.0.1:9191\n",
			files:   map[string]string{"vassals/one.ini": "[uwsgi]\n" + printsName},
			acts: []act{
				runs("one"),
				prints("curl -s --http0.9 127.0.0.1:9191 | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d[\"emperor\"], d[\"vassals\"][0][\"id\"], d[\"vassals\"][0][\"pid\"] > 0)'", "['/run/t/vassals'] one.ini True\n"),
			},
		},
		{
			what: "a special vassal with a different binary in a new network namespace",
			files: map[string]string{
				"vassals/funny.ini": "[uwsgi]\nuid = 1000\ngid = 1000\nunshare = net\nunprivileged-binary-patch-arg = /bin/sh -c 'ip -br link; id -u; exec sleep 1000'\n",
			},
			acts: []act{
				runs("funny"),
				inside("funny", "ip -br link | awk '{print $1}'; cut -d: -f3 /proc/net/dev | wc -l", "lo\n3\n"),
				says("funny", "1000"),
			},
		},
		{
			what: "signals: USR1 tells, HUP reloads all, TERM is the end of all",
			files: map[string]string{
				"vassals/one.ini": "[uwsgi]\n" + printsName,
				"vassals/two.ini": "[uwsgi]\n" + printsName,
			},
			acts: []act{
				says("one", "I am one"),
				says("two", "I am two"),
				runs("one", "two"),
				signals(syscall.SIGUSR1),
				reports("vassal is running"),
				reports("vassal is running"),
				signals(syscall.SIGHUP),
				anew("one", "two"),
				says("one", "I am one"),
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
