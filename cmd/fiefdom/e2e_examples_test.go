package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const examplesDir = "../../examples"

// unmade is what is said of users and groups of examples on a machine that has not got them.
var unmade = regexp.MustCompile(`no (user|group) "(customer001|node|php|postgres|redis)" `)

// Each example is free of errors and of options that nobody knows. (Users have to be
// made first; the runs do so.)
func TestExamplesParse(t *testing.T) {
	found := 0
	err := filepath.WalkDir(examplesDir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".ini" || filepath.Base(path) == "policy.ini" { // which is read with its emperor's
			return err
		}
		found++
		t.Run(strings.TrimPrefix(path, examplesDir+"/"), func(t *testing.T) {
			if f, errs := expandEmperor(path); errs == nil && isEmperors(f) {
				if _, errs := parseEmperor(path, f); len(errs) > 0 {
					t.Error(errs)
				}
				return
			}
			_, errs := emperor.ReadVassal(emperor.NameOf(path), path, nil)
			for _, err := range errs {
				if !unmade.MatchString(err.Message) {
					t.Error(err)
				}
			}
		})
		return nil
	})
	if err != nil || found < 6 {
		t.Errorf("%d examples found, want 6 or more (%v)", found, err)
	}
}

// copyExample copies an example's folder into the world, with some of its
// words replaced.
func (r *realm) copyExample(folder, to string, replace ...string) {
	r.t.Helper()
	from := filepath.Join(examplesDir, folder)
	words := strings.NewReplacer(replace...)
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := r.Path(filepath.Join(to, rel))
		if entry.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, []byte(words.Replace(string(text))), 0o644)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestExampleQuickstart(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	r := layRealm(t, w, "emperor", "")
	r.copyExample("quickstart", realmDir)
	r.api = emperor.NewClient(w.Path("/run/fiefdom/quickstart")) // the ini's instance
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	if shop.Addresses[0].String() != "10.9.0.7" || shop.UID != 65534 {
		t.Errorf("shop: %+v", shop)
	}
	if page, err := r.get(blog.Addresses[0], "/"); err != nil || !strings.Contains(page, "Directory listing") {
		t.Errorf("blog's page (%v):\n%s", err, page)
	}
	if page, err := r.get(shop.Addresses[0], "/"); err != nil || !strings.Contains(page, "GPL-3") {
		t.Errorf("shop's page (%v):\n%s", err, page)
	}
	if out := r.mustRun("check", realmDir+"/emperor.ini"); out != "" {
		t.Errorf("check says:\n%s", out)
	}
}

// The files of uWSGI's TunTapRouter document with the real uWSGI as the app:
// two customers' apps, IPv6 left on, with and without the document's firewall.
func TestExampleTunTapRouter(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"emperor.ini", "emperor-firewall.ini"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			testTunTapRouter(t, file)
		})
	}
}

func testTunTapRouter(t *testing.T, file string) {
	instance := emperor.NameOf(file)
	r := layRealm(t, nettest.NewWorld(t), instance, "")
	r.Run(t, "sh", "-e", "-c", `
echo customer001:x:1501:1501::/nonexistent:/bin/false >>/etc/passwd
echo customer001:x:1501: >>/etc/group
mkdir /run/t/www /etc/vassals
chown customer001:customer001 /run/t/www`)
	r.copyExample("tuntaprouter", realmDir, "/tmp/tuntap.socket", realmDir+"/tuntap.socket", "/var/www/foobar.pl", realmDir+"/foobar.pl")
	app := strings.ReplaceAll(r.read("/run/t/vassals/customer001.ini"), "/var/www/foobar.socket", "/run/t/www/%n.socket")
	r.start()
	defer func() { // what the document's hooks make is the operator's to remove
		for _, vassal := range []string{"customer001", "customer002"} {
			if err := os.Remove(r.Path("/etc/vassals/" + vassal + ".ini")); err != nil {
				t.Error(err)
			}
			nettest.Eventually(t, patience, vassal+" is gone", func() bool { return r.ps(vassal).Name == "" })
		}
		r.Run(t, "sh", "-c", "rmdir /etc/vassals; iptables -t nat -F; cp /etc/passwd /etc/passwd.new")
		r.Run(t, "sh", "-c", "rm /etc/passwd.new; sed -i /customer001/d /etc/passwd /etc/group")
	}()
	dropped := time.Now()
	r.write("/etc/vassals/customer001.ini", app)
	r.write("/etc/vassals/customer002.ini", strings.ReplaceAll(app, "192.168.0.2 ", "192.168.0.3 "))
	one, two := r.customer("customer001", "192.168.0.2"), r.customer("customer002", "192.168.0.3")
	t.Logf("both answer %v after their inis were there", time.Since(dropped).Round(time.Millisecond))

	r.inet(nettest.InetAddr4, nil)
	in := func(s emperor.Status, command string) (string, error) {
		return r.Try(t, "nsenter", "-t", fmt.Sprint(s.PID), "-n", "sh", "-c", command)
	}
	for _, s := range []emperor.Status{one, two} {
		if status := statusOf(r.proc(s.PID, "status")); status["Uid"] != "1501 1501 1501 1501" || status["Gid"] != "1501 1501 1501 1501" {
			t.Errorf("%s runs as %s:%s", s.Name, status["Uid"], status["Gid"])
		}
		if out, err := in(s, fetch("http://198.51.100.2/")); err != nil || out != nettest.HostAddr4.String()+"\n" {
			t.Errorf("from %s the internet sees %q (%v)", s.Name, out, err)
		}
		if out, err := in(s, "ping -c 1 -W 2 192.168.0.1"); err != nil {
			t.Errorf("%s does not reach the gateway:\n%s", s.Name, out)
		}
	}
	out, err := in(one, "ping -c 1 -W 0.5 192.168.0.3")
	if open := err == nil; open != (file == "emperor.ini") {
		t.Errorf("with %s the customers reach each other: %v\n%s", file, open, out)
	}
	// An address that is registered is nobody else's, even for root in a jail.
	if out, err := in(two, "ip addr add 192.168.0.2/32 dev uwsgi0; ping -c 1 -W 0.5 -I 192.168.0.2 192.168.0.1"); err == nil {
		t.Errorf("customer002 took the address of customer001:\n%s", out)
	}
	if now := r.ps("customer001"); now.PID != one.PID {
		t.Errorf("customer001 was disturbed: %+v", now)
	}
}

// customer waits until a customer's app answers on its unix socket.
func (r *realm) customer(name, addr string) emperor.Status {
	r.t.Helper()
	s := r.await(name, "answers on its socket", func(s emperor.Status) bool {
		if s.State != emperor.Running {
			return false
		}
		page, err := uwsgiGet(r.Path("/run/t/www/"+name+".socket"), "/"+name)
		return err == nil && strings.HasPrefix(page, "HTTP/1.") && strings.HasSuffix(page, "hello from /"+name+"\n")
	})
	if len(s.Addresses) != 1 || s.Addresses[0].String() != addr {
		r.t.Errorf("%s has registered %v, want %s", name, s.Addresses, addr)
	}
	return s
}

// uwsgiGet asks a uWSGI for a page in its own protocol: a header (modifier of
// the PSGI plugin, size, second modifier), then the variables of the request.
func uwsgiGet(socket, path string) (string, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	var vars bytes.Buffer
	for _, kv := range [][2]string{
		{"REQUEST_METHOD", "GET"},
		{"REQUEST_URI", path},
		{"PATH_INFO", path},
		{"QUERY_STRING", ""},
		{"SERVER_PROTOCOL", "HTTP/1.0"},
		{"SERVER_NAME", "localhost"},
		{"SERVER_PORT", "80"},
		{"HTTP_HOST", "localhost"},
	} {
		for _, word := range kv {
			_ = binary.Write(&vars, binary.LittleEndian, uint16(len(word)))
			vars.WriteString(word)
		}
	}
	const psgi = 5
	head := binary.LittleEndian.AppendUint16([]byte{psgi}, uint16(vars.Len()))
	if _, err := c.Write(append(append(head, 0), vars.Bytes()...)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}
