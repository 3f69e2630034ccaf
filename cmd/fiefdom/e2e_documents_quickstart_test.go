package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"fiefdom/emperor"
)

// The apps of the quick starts; each says which of its loads answers, and takes
// a while for it.
const (
	foobar = "import time\ndef application(env, start_response):\n    time.sleep(0.02)\n    start_response('200 OK', [('Content-Type','text/html')])\n    return [b\"Hello World LOAD\"]\n"
	myapp  = "my $app = sub { my $env = shift; select(undef, undef, undef, 0.02); return ['200', ['Content-Type' => 'text/html'], [\"<h1>Hello World</h1> LOAD\"]]; };\n"
)

// loads writes an app of a quick start in one of its versions.
func loads(path, text, load string) act {
	return writes(path, strings.ReplaceAll(text, "LOAD", load))
}

// unlost checks that no visitor of an address is turned away while something is done.
func unlost(address string, during ...act) act {
	return func(s *witness) {
		s.t.Helper()
		const visitors = 8 // as many as answer at once: whatever happens, somebody waits for an answer
		var visits atomic.Int64
		var over atomic.Bool
		lost := make(chan error, visitors)
		for range visitors {
			go func() {
				var err error
				for !over.Load() && err == nil {
					var page string
					if page, err = s.request(address); err == nil && !strings.Contains(page, "Hello World") {
						err = fmt.Errorf("the page is %q", page)
					}
					visits.Add(1)
				}
				lost <- err
			}()
		}
		defer func() {
			over.Store(true)
			for range visitors {
				if err := <-lost; err != nil {
					s.t.Errorf("a request of %d was lost: %v", visits.Load(), err)
				}
			}
		}()
		for _, do := range during {
			do(s)
		}
	}
}

// accepting waits until a vassal says that it takes requests.
func accepting(vassal string) act {
	return func(s *witness) {
		s.t.Helper()
		s.pids[vassal] = s.await(vassal, "takes requests", func(now emperor.Status) bool { return now.State == emperor.Running && now.Accepting }).PID
	}
}

// busy waits until all threads of the WSGI app have answered somebody. (A worker
// that has not made all its threads yet does not survive a reload.)
var busy = prints(`curl -s --http0.9 127.0.0.1:9191 | python3 -c '
import json, sys
workers = json.load(sys.stdin)["workers"]
print(len(workers), [core["requests"] > 0 for w in workers for core in w["cores"]].count(True))'`, "4 8\n")

// Real uwsgis by the quick starts' inis, with Debian's plugins.
func TestDocumentQuickstarts(t *testing.T) {
	// A uwsgi that is told to stop while its threads begin may not hear it.
	const impatient = "emperor-curse-tolerance = 3\n"
	keep(t, []promise{
		{
			emperor: plainEmperor + impatient,
			what:    "WSGI: processes, threads, stats, and reloads without a lost request",
			files: map[string]string{
				"vassals/foobar.ini": "[uwsgi]\nplugin = python3\nhttp-socket = 127.0.0.1:3031\nchdir = /run/t/\nwsgi-file = foobar.py\nmaster = true\nprocesses = 4\nthreads = 2\nstats = 127.0.0.1:9191\nharakiri = 30\ndisable-logging = true\n" +
					"touch-reload = /run/t/foobar.py\nuid = 1501\ngid = 1501\n",
				"foobar.py": strings.ReplaceAll(foobar, "LOAD", "1"),
			},
			acts: []act{
				serves("127.0.0.1:3031", "Hello World 1"),
				accepting("foobar"),
				loyal("foobar"),
				prints("ps -u 1501 -o args= | grep -c uwsgi", "5\n"),
				unlost("127.0.0.1:3031",
					busy,
					// touch-reload; a uwsgi sees whole seconds of a file's time.
					does("sed 's/World 1/World 2/' foobar.py >new; touch -d '1 minute' new; mv new foobar.py"),
					serves("127.0.0.1:3031", "Hello World 2"),
					busy,
					loads("foobar.py", foobar, "3"), touches("foobar"),
					serves("127.0.0.1:3031", "Hello World 3"),
				),
				same("foobar"),
				dies("foobar"),
				anew("foobar"),
				serves("127.0.0.1:3031", "Hello World 3"),
			},
		},
		{
			emperor: plainEmperor + impatient,
			what:    "PSGI: a socket for a web server, and one that speaks HTTP",
			files: map[string]string{
				"vassals/my.ini": "[uwsgi]\nplugins = psgi\nsocket = /run/t/my.socket\nchmod-socket = 666\nhttp-socket = 127.0.0.1:8080\nhttp-socket-modifier1 = 5\nchdir = /run/t\npsgi = myapp.pl\nmaster = true\nprocesses = 4\nharakiri = 30\nstats = 127.0.0.1:5000\n",
				"myapp.pl":       strings.ReplaceAll(myapp, "LOAD", "1"),
			},
			acts: []act{
				serves("/run/t/my.socket", "<h1>Hello World</h1> 1"),
				serves("127.0.0.1:8080", "<h1>Hello World</h1> 1"),
				runs("my"),
				unlost("/run/t/my.socket",
					loads("myapp.pl", myapp, "2"), touches("my"),
					serves("/run/t/my.socket", "<h1>Hello World</h1> 2"),
					serves("127.0.0.1:8080", "<h1>Hello World</h1> 2"),
				),
				same("my"),
			},
		},
		{
			emperor: plainEmperor + impatient,
			what:    "the HTTP router of uWSGI before an app",
			files: map[string]string{
				"vassals/routed.ini": "[uwsgi]\nplugins = http,python3\nhttp = :9090\nwsgi-file = /run/t/foobar.py\nmaster = true\nprocesses = 2\nthreads = 2\n",
				"foobar.py":          strings.ReplaceAll(foobar, "LOAD", "1"),
			},
			acts: []act{
				serves("127.0.0.1:9090", "Hello World 1"),
				runs("routed"),
				loads("foobar.py", foobar, "2"), touches("routed"),
				serves("127.0.0.1:9090", "Hello World 2"),
				same("routed"),
				removes("routed"),
				prints("ss -Hltn | wc -l; pgrep -c uwsgi", "0\n0\n"),
			},
		},
		{
			what:    "an app in a jail, by its address",
			emperor: nativeNetwork + impatient,
			files: map[string]string{
				"vassals/foobar.ini": "[uwsgi]\nplugin = python3\nhttp-socket = :8000\nwsgi-file = /run/t/foobar.py\nmaster = true\nprocesses = 2\nthreads = 2\ntuntap-device-address = 10.9.0.7\n",
				"foobar.py":          strings.ReplaceAll(foobar, "LOAD", "1"),
			},
			acts: []act{
				serves("10.9.0.7:8000", "Hello World 1"),
				runs("foobar"),
				unlost("10.9.0.7:8000",
					loads("foobar.py", foobar, "2"), touches("foobar"),
					serves("10.9.0.7:8000", "Hello World 2"),
				),
				same("foobar"),
			},
		},
	})
}
