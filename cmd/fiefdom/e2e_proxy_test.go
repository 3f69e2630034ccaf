package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// proxies is where make deps unpacks the distribution's web servers.
const proxies = "../../bin/proxies"

// distributed is a program of the distribution's that make deps has unpacked.
func distributed(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(proxies, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		nettest.Lacks(t, "%v; unpack it first: make deps", err)
	}
	return path
}

// layNginx gives the world Debian's configuration of nginx, with examples of ours in
// it. Only what it logs goes elsewhere.
func (r *realm) layNginx(examples ...string) {
	r.t.Helper()
	distributed(r.t, "usr/sbin/nginx")
	from, err := filepath.Abs(proxies)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Run(r.t, "sh", "-ec", `rm -rf /etc/nginx; cp -a "$0"/etc/nginx /etc; sed -i 's|/var/log/nginx|/run/t|' /etc/nginx/nginx.conf
mkdir -p /etc/nginx/conf.d /var/lib/nginx; cd /var/lib/nginx; mkdir -m 700 body fastcgi proxy scgi uwsgi`, from)
	for _, example := range examples {
		text, err := os.ReadFile(filepath.Join(examplesDir, "nginx", example))
		if err != nil {
			r.t.Fatal(err)
		}
		r.write("/etc/nginx/conf.d/"+example, string(text))
	}
}

// nginx starts an nginx on the host, and returns how to end it: at once, since one
// that takes its leave waits for connections on which nobody has asked yet.
func (r *realm) nginx() (end func()) {
	r.t.Helper()
	return r.proxy(exec.Command(distributed(r.t, "usr/sbin/nginx"), "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;"))
}

// caddy starts a Caddy on the host with our example.
func (r *realm) caddy() (end func()) {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(examplesDir, "caddy", "Caddyfile"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(realmDir+"/Caddyfile", string(text))
	cmd := exec.Command(distributed(r.t, "usr/bin/caddy"), "run", "--config", realmDir+"/Caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+realmDir, "XDG_DATA_HOME="+realmDir+"/caddy", "XDG_CONFIG_HOME="+realmDir+"/caddy")
	return r.proxy(cmd)
}

// proxy starts a web server and waits until it listens.
func (r *realm) proxy(cmd *exec.Cmd) (end func()) {
	r.t.Helper()
	log, err := os.Create(filepath.Join(r.t.TempDir(), "proxy"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if text, _ := os.ReadFile(log.Name()); r.t.Failed() {
			r.t.Logf("the proxy says:\n%.4000s\n%.8000s", text, r.read("/run/t/error.log"))
		}
		log.Close()
	})
	cmd.Stdout, cmd.Stderr = log, log
	r.Start(r.t, cmd)
	nettest.Eventually(r.t, patience, "the proxy listens", func() bool {
		c, err := r.dial(r.t.Context(), nettest.HostAddr4, "80")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return func() {
		r.t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			r.t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			r.t.Errorf("the proxy ended: %v", err)
		}
	}
}

// visitor is a client on the internet, to whom every name is the host's.
func (r *realm) visitor() *http.Client {
	dial := func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = netns.Do(r.Inet.Handle, func() error {
			c, err = new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(nettest.HostAddr4, 80).String())
			return err
		})
		return c, err
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 32}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// page asks for a page, with a word of the client's about where it comes from.
func page(c *http.Client, url string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Forwarded-For", "203.0.113.66")
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return strings.TrimSpace(string(text)), err
}

// manners checks that a vassal hears its client's address from the proxy, and not
// what the client says that it is.
func (r *realm) manners(host string) {
	r.t.Helper()
	if text, err := page(r.visitor(), "http://"+host+"/forwarded"); err != nil || text != nettest.InetAddr4.String() {
		r.t.Errorf("the app hears that it talks with %q (%v)", text, err)
	}
}

// By names in /etc/hosts an nginx finds vassals even if it starts before the emperor,
// and again when they have been started anew.
func TestNginxByHosts(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"tuntap-router-address = fd00:9::1/64\n")
	r.layNginx("sites.conf")
	r.drop("blog", tellsPID)
	r.start()
	r.reach("blog")
	r.mustRun("hosts", "--install")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait()
	end := r.nginx()
	r.start()
	r.served("www.example.org", r.reach("blog"))
	r.mustRun("restart", "blog")
	r.served("www.example.org", r.reach("blog"))
	r.manners("www.example.org")
	end()
	r.mustRun("hosts", "--remove")
	r.stop(syscall.SIGTERM)
}

// By its door a vassal is reached without any name, in HTTP or in uwsgi's protocol:
// whoever comes while it sleeps, or has just been killed, waits and is answered.
func TestNginxByDoors(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-extension = .socket\n")
	r.layNginx("door.conf")
	r.write("/etc/nginx/conf.d/uwsgi.conf", `server {
	listen 80;
	server_name perl.example.net;
	location / { include uwsgi_params; uwsgi_modifier1 5; uwsgi_pass unix:/run/apps/perl; }
}
`)
	r.write("/run/t/app.pl", "sub { [200, ['Content-Type' => 'text/plain'], [\"perl for $_[0]->{REMOTE_ADDR}\"]] }\n")
	r.Run(t, "mkdir", "/run/apps")
	for vassal, ini := range map[string]string{"greet": tellsPID, "perl": "[uwsgi]\nplugins = psgi\npsgi = /run/t/app.pl\n"} {
		r.write(iniPath(vassal)+".socket", "/run/apps/"+vassal+"\n")
		r.drop(vassal, ini)
	}
	r.start()
	end := r.nginx()
	client := r.visitor()
	r.awaitState("perl", emperor.Sleeping)
	if text, err := page(client, "http://perl.example.net/"); err != nil || text != "perl for "+nettest.InetAddr4.String() {
		t.Errorf("the page of perl (%v): %q", err, text)
	}
	r.awaitState("greet", emperor.Sleeping)
	for range 3 {
		text, err := page(client, "http://greet.example.net/")
		if err != nil {
			t.Fatal(err)
		}
		s := r.await("greet", "is who has answered", func(s emperor.Status) bool { return fmt.Sprint(s.PID) == text })
		r.kill(s.PID)
	}
	r.manners("greet.example.net")
	end()
	r.stop(syscall.SIGTERM)
}

// served waits until a site is a vassal's.
func (r *realm) served(host string, by emperor.Status) {
	r.t.Helper()
	client := r.visitor()
	nettest.Eventually(r.t, patience, host+" is "+by.Name, func() bool {
		text, err := page(client, "http://"+host+"/")
		return err == nil && text == fmt.Sprint(by.PID)
	})
}
