package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// apps is where make deps unpacks what the examples of apps run.
const apps = "../../bin/apps"

// realProgram is a program as people run it, with its example's ini as it is.
type realProgram struct {
	name    string
	prepare string // on the host: what the example says to do once, and its files
	works   func(r *realm, s emperor.Status)
}

var realPrograms = []realProgram{
	{name: "python", prepare: `mkdir /srv/python; cat >/srv/python/app.py <<'EOF'
import http.server, sqlite3
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b'page of sqlite ' + sqlite3.connect(':memory:').execute("select 'three'").fetchone()[0].encode())
http.server.ThreadingHTTPServer(('', 8000), Page).serve_forever()
` + "EOF", works: func(r *realm, s emperor.Status) { r.shows(s, "page of sqlite three") }},

	{name: "node", prepare: `install -d -o node -g node /srv/node/data; cat >/srv/node/app.js <<'EOF'
const fs = require('fs'), log = '/srv/node/data/log'
require('http').createServer((q, a) => { fs.appendFileSync(log, q.method + ' '); a.end(fs.readFileSync(log)) }).listen(8000)
` + "EOF", works: func(r *realm, s emperor.Status) {
		r.shows(s, "GET ")
		r.stopThenStart(s.Name)
		r.shows(r.awaitState(s.Name, emperor.Running), "GET GET ")
	}},

	{name: "go", works: func(r *realm, s emperor.Status) {
		r.shows(s, "page of Go")
		if out := r.Inet.Run(r.t, "curl", "-sS", "http://"+nettest.HostAddr4.String()+":8080/"); out != "page of Go" {
			r.t.Errorf("at the published port is %q", out)
		}
	}},

	{name: "nginx", prepare: `install -d -o www-data -g www-data /srv/www/logs; mkdir /srv/www/html; echo page >/srv/www/html/index.html
cp "$0/nginx.conf" /etc/nginx/vassal.conf`, works: func(r *realm, s emperor.Status) {
		client := r.visitor()
		nettest.Eventually(r.t, 2*patience, "nginx serves visitors", func() bool {
			text, err := page(client, "http://www.example.org/")
			return err == nil && text == "page"
		})
		nettest.Eventually(r.t, patience, "nginx logs who came", func() bool {
			log := r.read("/srv/www/logs/access.log")
			return strings.HasPrefix(log, nettest.InetAddr4.String()+" ") && strings.Contains(log, `"GET / HTTP/1.1" 200 5 `)
		})
	}},

	{name: "postgresql", prepare: "install -d -o postgres -g postgres -m 700 /srv/postgresql", works: func(r *realm, s emperor.Status) {
		sql := func(query, want string) {
			r.t.Helper()
			r.answersBy(want, "exec", s.Name, "--", "psql", "-h", "/tmp", "-Atqc", query)
		}
		sql("create table t (n int)", "")
		sql("insert into t select generate_series(1, 1000)", "")
		sql("set jit_above_cost = 0; select sum(n) from t", "500500\n")
		r.stopThenStart(s.Name)
		r.awaitState(s.Name, emperor.Running)
		sql("select count(*) from t", "1000\n")
	}},

	{name: "redis", prepare: "install -d -o redis -g redis -m 700 /srv/redis", works: func(r *realm, s emperor.Status) {
		r.answersBy("OK\n", "exec", s.Name, "--", "redis-cli", "set", "colour", "green")
		r.answersBy("OK\n", "exec", s.Name, "--", "redis-cli", "save")
		r.stopThenStart(s.Name)
		r.awaitState(s.Name, emperor.Running)
		r.answersBy("green\n", "exec", s.Name, "--", "redis-cli", "get", "colour")
		if out := r.Run(r.t, "sh", "-c", "redis-cli -h "+s.Addresses[0].String()+" get colour"); out != "green\n" {
			r.t.Errorf("the host is answered %q", out)
		}
	}},

	{name: "php-fpm", prepare: `install -d -o php -g php /srv/php/data; cp "$0/php-fpm.conf" /etc/php/8.2/fpm/vassal.conf
mkdir -p /etc/php/8.2/fpm/conf.d; echo zend_extension=opcache.so >/etc/php/8.2/fpm/conf.d/10-opcache.ini
cat >/srv/php/index.php <<'EOF'
<?php file_put_contents('/srv/php/data/log', '|', FILE_APPEND); echo opcache_get_status()['opcache_enabled'] ? 'cached' : 'plain', file_get_contents('/srv/php/data/log');
` + "EOF", works: func(r *realm, s emperor.Status) {
		var answer string
		var err error
		nettest.Eventually(r.t, 2*patience, "PHP-FPM answers", func() bool {
			answer, err = r.fastCGI(s.Addresses[0], "9000", "/srv/php/index.php")
			return err == nil
		})
		if again, err := r.fastCGI(s.Addresses[0], "9000", "/srv/php/index.php"); err != nil ||
			!strings.HasSuffix(answer, "\r\n\r\ncached|") || !strings.HasSuffix(again, "\r\n\r\ncached||") {
			r.t.Errorf("the script says %q, then %q (%v)", answer, again, err)
		}
	}},

	{name: "uwsgi", prepare: `mkdir /srv/uwsgi; cat >/srv/uwsgi/app.py <<'EOF'
import time, uwsgi
def application(env, start): start('200 OK', []); time.sleep(0.1); return [b'page of worker %d\n' % uwsgi.worker_id()]
` + "EOF", works: func(r *realm, s emperor.Status) {
		// A worker that is told to end while it starts may not hear it: first both are there.
		both := []string{"exec", s.Name, "--", "sh", "-c", "for n in 1 2; do curl -sS http://127.0.0.1:8000/ & done | sort"}
		r.answersBy("page of worker 1\npage of worker 2\n", both...)
		r.await(s.Name, "has said by the protocol that it accepts, and is loyal", func(s emperor.Status) bool { return s.Accepting && s.Loyal })
		r.Run(r.t, "sed", "-i", "s/page/next page/", "/srv/uwsgi/app.py")
		r.mustRun("reload", s.Name)
		r.answersBy("next page of worker 1\nnext page of worker 2\n", both...)
		if now := r.ps(s.Name); now.PID != s.PID {
			r.t.Errorf("it did not reload itself: %+v, the pid was %d", now, s.PID)
		}
	}},
}

// shows waits until an app answers the host with a page, as the process that it is.
func (r *realm) shows(s emperor.Status, want string) {
	r.t.Helper()
	var text string
	var err error
	r.await(s.Name, "shows "+want, func(now emperor.Status) bool {
		text, err = r.ask(http.MethodGet, s.Addresses[0], "/", nil, patience)
		return err == nil && text == want && now.PID == s.PID && now.State == emperor.Running
	})
}

// answersBy waits until a command of the program has an answer.
func (r *realm) answersBy(want string, args ...string) {
	r.t.Helper()
	var out string
	defer func() {
		if r.t.Failed() {
			r.t.Logf("fiefdom %q says %q", args, out)
		}
	}()
	nettest.Eventually(r.t, 2*patience, fmt.Sprintf("fiefdom %q says %q", args, want), func() bool {
		var code int
		out, code = r.run(args...)
		return code == exitOK && out == want
	})
}

// layPrograms gives the world what make deps has unpacked, where it would be if it
// were installed, an empty /srv, and the user that an ini names.
func (r *realm) layPrograms(ini string) {
	r.t.Helper()
	var from []string
	for _, dir := range []string{proxies, apps} {
		path, err := filepath.Abs(dir)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			nettest.Lacks(r.t, "%v; unpack it first: make deps", err)
		}
		from = append(from, path)
	}
	r.Run(r.t, "sh", "-ec", `mount -t overlay -o "lowerdir=$0/usr:$1/usr:/usr" overlay /usr
cp -a "$0/etc/." "$1/etc/." /etc; mount -t tmpfs -o mode=755 tmpfs /srv`, from[0], from[1])
	if m := regexp.MustCompile(`(?m)^uid = (\S+)$`).FindStringSubmatch(ini); m != nil {
		r.Run(r.t, "sh", "-ec", `id -u "$0" >/dev/null 2>&1 || {
echo "$0:x:1501:1501::/nonexistent:/bin/false" >>/etc/passwd; echo "$0:x:1501:" >>/etc/group; }`, m[1])
	}
}

// layGo builds the program of the example for Go.
func (r *realm) layGo() {
	r.t.Helper()
	dir := r.t.TempDir()
	source := filepath.Join(dir, "app.go")
	if err := os.WriteFile(source, []byte(`package main

import (
	"io"
	"net/http"
)

func main() {
	panic(http.ListenAndServe(":8000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page of Go") })))
}
`), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if out, err := nettest.GoTool(r.t.Context(), "build", "-o", filepath.Join(dir, "app"), source).CombinedOutput(); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	r.Run(r.t, "install", "-D", filepath.Join(dir, "app"), "/srv/go/app")
}

// Programs as people run them are confined with no more in their inis than a user,
// where they keep their data, and their ports: the examples, as they are.
func TestRealProgramsAreConfined(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs(filepath.Join(examplesDir, "apps"))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := filepath.Glob(filepath.Join(dir, "*.ini")); err != nil || len(all) != len(realPrograms) {
		t.Fatalf("the examples are %q (%v), and %d programs are tried", all, err, len(realPrograms))
	}
	for _, p := range realPrograms {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			ini, err := os.ReadFile(filepath.Join(dir, p.name+".ini"))
			if err != nil {
				t.Fatal(err)
			}
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
			r.layPrograms(string(ini))
			if p.name == "go" {
				r.layGo()
			}
			r.Run(t, "sh", "-ec", p.prepare, dir)
			r.drop(p.name, string(ini))
			if out := r.mustRun("check", realmDir+"/emperor.ini"); out != "" {
				t.Errorf("check says:\n%s", out)
			}
			r.start()
			s := r.await(p.name, "runs with an address", func(s emperor.Status) bool { return s.State == emperor.Running && len(s.Addresses) > 0 })
			p.works(r, s)
			if now := r.ps(p.name); now.Deaths != 0 || now.LastEnd != "" || now.Confinement == nil || now.Confinement.Level != "default" || now.Confinement.Unbounded {
				t.Errorf("%+v, confined %+v", now, now.Confinement)
			}
			r.stop(syscall.SIGTERM)
		})
	}
}
