package main

import (
	"testing"

	"fiefdom/emperor"
)

// Hooks: the phases, the kinds of hooks in them, and what their failures mean.
func TestDocumentHooks(t *testing.T) {
	loaded := func(s *witness) { s.t.Helper(); s.logs("app", "application has been loaded") } // without an end of the line
	keep(t, []promise{
		{
			what:    "phases in their order; in a phase advanced hooks, then mounts, then commands",
			emperor: plainEmperor + "emperor-use-clone = fs,pid,net\nexec-as-vassal = echo as-vassal >>/run/t/order\nexec-as-emperor = echo as-emperor >>/run/t/spawned\n",
			files: map[string]string{
				"vassals/app.ini": "[uwsgi]\n" +
					"exec-as-user = echo as-user $(id -u) >>/run/t/order\n" +
					"exec-as-root = echo as-root $(stat -f -c %%T /mnt) >>/run/t/order\n" +
					"mount-as-root = tmpfs none /mnt\n" +
					"hook-as-root = exec:echo as-root before the mount $(stat -f -c %%T /mnt) >>/run/t/order\n" +
					"exec-post-jail = echo post-jail >>/run/t/order\n" +
					"exec-in-jail = echo in-jail >>/run/t/order\n" +
					"exec-pre-jail = echo pre-jail >>/run/t/order\n" +
					"uid = 1501\ngid = 1501\n" + printsName,
			},
			before: "touch order; chmod 666 order",
			acts: []act{
				says("app", "I am app"),
				holds("spawned", "as-emperor\n"),
				prints("sed 's/ext[^ ]*$/disk/; s/overlay.*/disk/; s/xfs$/disk/; s/btrfs$/disk/' order",
					"as-vassal\npre-jail\nin-jail\npost-jail\nas-root before the mount disk\nas-root tmpfs\nas-user 1501\n"),
				prints("stat -f -c %T /mnt | grep -c tmpfs", "0\n"),
			},
		},
		{
			what:    "commands of both privileges, in a jail",
			emperor: plainEmperor + "emperor-use-clone = fs,pid,net\n",
			before:  "mkdir -m 777 tmp; touch tmp/foobar",
			files: map[string]string{
				"app.pl": perlHello,
				"vassals/app.ini": "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nsocket = /run/t/tmp/app.socket\nuid = 1501\ngid = 1501\n" +
					"exec-as-root = head -n 1 /proc/cpuinfo >/run/t/tmp/cpu\nexec-as-root = echo 1 > /proc/sys/net/ipv4/ip_forward\n" +
					"exec-as-user = ls /run/t/tmp >/run/t/tmp/listing\nexec-as-user-atexit = rm /run/t/tmp/foobar /run/t/tmp/listing\n" +
					"hook-as-root = mount:proc none /proc\nhook-as-root = exec:cat /proc/self/mounts >/run/t/tmp/mounts\n" +
					"hook-pre-app = exec:echo before the app\nhook-post-app = call:uwsgi_log application has been loaded\nhook-as-user-atexit = print:goodbye cruel world\n",
			},
			acts: []act{
				serves("/run/t/tmp/app.socket", "Hello World"),
				runs("app"),
				holds("tmp/listing", "cpu\nfoobar\nlisting\nmounts\n"),
				prints("grep -c '^none /proc proc' tmp/mounts; cut -c1-9 tmp/cpu; cat /proc/sys/net/ipv4/ip_forward", "1\nprocessor\n0\n"),
				inside("app", "cat /proc/sys/net/ipv4/ip_forward", "1\n"),
				says("app", "before the app"),
				loaded,
				touches("app"),
				loaded,
				removes("app"),
				says("app", "goodbye cruel world"),
				does("test ! -e tmp/foobar; test ! -e tmp/listing"),
			},
		},
		{
			what: "a hook that fails is fatal, with its place",
			files: map[string]string{
				"vassals/pre-jail.ini":  "[uwsgi]\nexec-pre-jail = exit 3\n" + printsName,
				"vassals/post-jail.ini": "[uwsgi]\nhook-post-jail = mount:tmpfs none /run/t/none\n" + printsName,
				"vassals/as-root.ini":   "[uwsgi]\nhook-as-root = cd:/run/t/none\n" + printsName,
				"vassals/as-user.ini":   "[uwsgi]\nuid = 1501\nexec-as-user = touch /run/t/none\n" + printsName,
				"vassals/unknown.ini":   "[uwsgi]\nhook-as-root = dance:all night\n" + printsName,
				"vassals/exits.ini":     "[uwsgi]\nhook-as-user = exit:7\n" + printsName,
				"vassals/fine.ini":      "[uwsgi]\nhook-as-root = print:hello\nhook-as-root = cd:/run/t\n" + printsName,
			},
			acts: []act{
				is("pre-jail", emperor.Backoff, "pre-jail.ini:2: "),
				is("post-jail", emperor.Backoff, "post-jail.ini:2: "),
				is("as-root", emperor.Backoff, "as-root.ini:2: "),
				is("as-user", emperor.Backoff, "as-user.ini:3: "),
				is("unknown", emperor.Invalid, "unknown.ini:2: "),
				is("exits", emperor.Backoff, ""),
				says("fine", "hello", "I am fine"),
			},
		},
		{
			what:    "as-emperor is told of each vassal, fails alone, and stops nobody",
			emperor: plainEmperor + "exec-as-emperor = echo $(basename $UWSGI_VASSAL_CONFIG) $UWSGI_VASSAL_UID $(test $UWSGI_VASSAL_PID -gt 1 && echo pid) >>/run/t/spawned; exit 1\n",
			before:  "mkdir -p vassals; printf '[uwsgi]\\ncommand = sleep 1000\\n' >vassals/app.ini; chown 0:0 vassals/app.ini",
			acts: []act{
				runs("app"),
				holds("spawned", "app.ini 0 pid\n"),
				reports("exit status 1"),
				same("app"),
			},
		},
	})
}
