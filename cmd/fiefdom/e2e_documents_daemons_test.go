package main

import (
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// pidOf waits for the one process with a command line and returns its pid.
func (s *witness) pidOf(command, not string) string {
	s.t.Helper()
	pid := ""
	nettest.Eventually(s.t, patience, "there is one new "+command, func() bool {
		out, _ := s.Try(s.t, "pgrep", "-xf", command)
		pid = strings.TrimSpace(out)
		return len(strings.Fields(pid)) == 1 && pid != not
	})
	return pid
}

// replaced does something, and waits until a process has been replaced by another.
func replaced(command string, do ...act) act {
	return func(s *witness) {
		s.t.Helper()
		old := s.pidOf(command, "")
		acts(do...)(s)
		s.pidOf(command, old)
	}
}

// kept does something, and checks that a process outlives it.
func kept(command string, do ...act) act {
	return func(s *witness) {
		s.t.Helper()
		old := s.pidOf(command, "")
		acts(do...)(s)
		if now := s.pidOf(command, ""); now != old {
			s.t.Errorf("%s was process %s, and is %s", command, old, now)
		}
	}
}

// ended waits until there is no process with a command line.
func ended(command string) act { return prints("pgrep -c -xf '"+command+"'", "0\n") }

// pidfileDaemon is a daemon that writes its pidfile itself and stays in the foreground;
// its command line is sleep and a number.
const pidfileDaemon = "#!/bin/sh\necho $$ >$1\nexec sleep $2\n"

// AttachingDaemons and Cron, of a real uwsgi, whose master looks after them, and
// of vassals that are none, for which we do.
func TestDocumentAttachingDaemons(t *testing.T) {
	const uwsgi = "[uwsgi]\nmaster = true\nplugin = psgi\npsgi = /run/t/app.pl\nsocket = /run/t/app.socket\n"
	up := serves("/run/t/app.socket", "Hello World")
	keep(t, []promise{
		{
			what: "of a uwsgi: dumb ones end with a reload, smart ones outlive it",
			files: map[string]string{
				"app.pl": perlHello,
				"daemon": pidfileDaemon,
				"vassals/app.ini": uwsgi + "attach-daemon = exec sleep 1001\n" +
					"smart-attach-daemon = /run/t/mongo1.pid sh /run/t/daemon /run/t/mongo1.pid 1002\n" +
					"smart-attach-daemon = /run/t/mongo2.pid sh /run/t/daemon /run/t/mongo2.pid 1003\n",
			},
			acts: []act{
				up,
				replaced("sleep 1001", does("pkill -xf 'sleep 1001'")),
				replaced("sleep 1001", kept("sleep 1002", kept("sleep 1003", touches("app"), reports("vassal reloaded"), up))),
				// A stopped vassal leaves nothing behind, smart or not.
				removes("app"),
				ended("sleep 1001"), ended("sleep 1002"), ended("sleep 1003"),
			},
		},
		{
			what:   "of other vassals: beside a command, and without one",
			before: "mkdir -m 777 tmp",
			files: map[string]string{
				"daemon":                pidfileDaemon,
				"vassals/memcached.ini": "[uwsgi]\nmaster = true\nsocket = :3031\nattach-daemon = exec sleep 1001\ncommand = sleep 1000\n",
				"vassals/databases.ini": "[uwsgi]\nmaster = true\n" +
					"smart-attach-daemon = /run/t/mongo1.pid sh /run/t/daemon /run/t/mongo1.pid 1002 &\n" +
					"smart-attach-daemon2 = /run/t/mongo2.pid exec sleep 1003\n",
				"vassals/worker.ini":  "[uwsgi]\nchdir = /run\nattach-daemon2 = cmd=pwd; id -u; exec sleep 1004,pidfile=/run/t/tmp/my.pid,uid=33,gid=33,stopsignal=3,chdir=/run/t,daemonize=1\n",
				"vassals/control.ini": "[uwsgi]\nattach-control-daemon = exec sleep 1005\nattach-daemon = exec sleep 1006\n",
			},
			acts: []act{
				runs("memcached", "databases", "worker", "control"),
				says("worker", "pwd | /run/t", "pwd | 33"),
				replaced("sleep 1001", kept("sleep 1000", does("pkill -xf 'sleep 1001'"))),
				kept("sleep 1001", dies("memcached"), anew("memcached")),
				replaced("sleep 1001", touches("memcached"), anew("memcached")),
				func(s *witness) {
					for file, command := range map[string]string{"mongo1.pid": "sleep 1002", "mongo2.pid": "sleep 1003", "tmp/my.pid": "sleep 1004"} {
						holds(file, s.pidOf(command, "")+"\n")(s)
					}
				},
				replaced("sleep 1002", kept("sleep 1003", does("pkill -xf 'sleep 1002'"))),
				replaced("sleep 1006", does("pkill -xf 'sleep 1005'")),
				removes("databases"),
				ended("sleep 1002"), ended("sleep 1003"),
			},
		},
		{
			what: "cron of a uwsgi, and of a vassal that is none",
			files: map[string]string{
				"app.pl":          perlHello,
				"vassals/app.ini": uwsgi + "cron = -1 -1 -1 -1 -1 echo backed up >>/run/t/app-backup\n",
				"vassals/jobs.ini": "[uwsgi]\ncommand = sleep 1000\n" +
					"cron = -1 -1 -1 -1 -1 echo backed up >>/run/t/backup\n" +
					"cron = 59 2 31 2 -1 touch /run/t/never\n" +
					"unique-cron = -1 -1 -1 -1 -1 echo once >>/run/t/once; exec sleep 1007\n" +
					"cron2 = minute=-1,unique=1 echo once >>/run/t/once; exec sleep 1008\n" +
					"cron2 = harakiri=1 exec sleep 1009\n",
			},
			acts: []act{
				holds("backup", "backed up\n"),
				holds("app-backup", "backed up\n"),
				holds("once", "once\nonce\n"),
				kept("sleep 1007", ended("sleep 1009")),
				kept("sleep 1008"),
				does("test ! -e never"),
				removes("jobs"),
				ended("sleep 1007"),
			},
		},
	})
}
