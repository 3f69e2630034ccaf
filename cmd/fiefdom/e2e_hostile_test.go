package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/hostile"
	"fiefdom/internal/nettest"
)

// hostileDir is where the hostile app is in a world, with what it is told of the
// place.
const hostileDir = "/var/lib/hostile"

// hostileIni is the least of inis for it: nobody has thought of confinement.
const (
	hostileIni  = "[uwsgi]\nchdir = " + hostileDir + "\ncommand = " + hostileLine
	hostileLine = hostileDir + "/hostile -json -stay -site @" + hostileDir + "/site.json\n"
)

// hostileRealm is a realm with everything that the hostile app looks for: secrets,
// sockets, listeners, keys, programs with more rights, a neighbour. The emperor
// does not run yet.
func hostileRealm(t *testing.T, ini string) (*realm, *hostile.Site) {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", ini)
	site := &hostile.Site{
		Runtime: "/run/fiefdom/emperor", Program: filepath.Join(filepath.Dir(agentPath(t)), "fiefdom"),
		Sockets: []string{"/run/fiefdom/emperor/fief0.sock", "/run/fiefdom/emperor/stats.sock"},
		Folders: []string{realmDir + "/vassals", "/var/lib/fiefdom", "/etc/docker"},
		Keys:    []string{"emperors-key"}, Abstract: []string{"of-the-host"}, Gateway: "10.9.0.1",
	}
	r.lasting = hostileDir + "/site.json"
	r.program, r.environ = realmDir+"/with-key", []string{"SECRET_TOKEN=of the emperor"}
	r.write(r.program, withKey)
	r.write(realmDir+"/with-key-run", strings.Replace(withKey, "os.execv('LASTING', ['fiefdom'] + sys.argv[1:])", "os.execv(sys.argv[1], sys.argv[1:])", 1))
	r.Run(t, "chmod", "+x", r.program, realmDir+"/with-key-run")
	r.plantPrograms(site)
	r.plantFiles(site)
	r.plantListeners(site)
	return r, site
}

// plantPrograms puts the hostile app to where everybody may run it: plain,
// setuid, and with file capabilities.
func (r *realm) plantPrograms(site *hostile.Site) {
	r.t.Helper()
	r.Run(r.t, "mkdir", "-m", "755", hostileDir, hostileDir+"/more")
	program := hostileDir + "/hostile"
	site.Setuid, site.Capable = hostileDir+"/more/setuid", hostileDir+"/more/capable"
	build := nettest.GoTool(r.t.Context(), "build", "-o", r.Path(program), "fiefdom/internal/hostile/program")
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatalf("build the hostile app: %v\n%s", err, out)
	}
	r.Run(r.t, "chmod", "755", program)
	for _, path := range []string{site.Setuid, site.Capable} {
		r.Run(r.t, "cp", program, path)
	}
	r.Run(r.t, "chmod", "4755", site.Setuid)
	// As setcap does: version 2, effective, and what may be (capability.h).
	caps := make([]byte, 20)
	binary.LittleEndian.PutUint32(caps, 0x02000001)
	binary.LittleEndian.PutUint32(caps[4:], 1<<unix.CAP_NET_RAW|1<<unix.CAP_NET_ADMIN)
	if err := unix.Setxattr(r.Path(site.Capable), "security.capability", caps, 0); err != nil {
		r.t.Fatal(err)
	}
}

// plantFiles leaves files for all to read where an app should find none of
// others', and secrets that only masks protect from a vassal that is root.
func (r *realm) plantFiles(site *hostile.Site) {
	r.t.Helper()
	shm := fmt.Sprintf("/dev/shm/of-hostile-%d", os.Getpid())
	if err := os.WriteFile(shm, []byte("x"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	tmp := filepath.Join(filepath.Dir(agentPath(r.t)), "planted")
	if err := os.WriteFile(tmp, []byte("x"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { os.Remove(shm); os.Remove(tmp) })
	r.write("/run/planted", "x")
	site.Planted = []string{shm, tmp, "/run/planted"}
	r.Run(r.t, "mkdir", "-p", "/etc/fiefdom/vassals", "/etc/docker", "/etc/ssl/private", "/etc/wireguard")
	for _, path := range []string{"/etc/fiefdom/vassals/other.ini", "/etc/docker/key.json", "/etc/ssl/private/key.pem", "/etc/wireguard/wg0.conf"} {
		r.write(path, "secret")
	}
	out := r.Run(r.t, "ipcmk", "-M", "64", "-p", "0666")
	var id int
	if _, err := fmt.Sscanf(out, "Shared memory id: %d", &id); err != nil {
		r.t.Fatalf("%q: %v", out, err)
	}
	r.t.Cleanup(func() {
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
			r.t.Error(err)
		}
	})
	site.Memory = &id
}

// plantListeners lets the host and the networks around it listen.
func (r *realm) plantListeners(site *hostile.Site) {
	r.t.Helper()
	listen := func(kind, address string) {
		var l io.Closer
		var err error
		if kind == "unixgram" {
			l, err = net.ListenUnixgram(kind, &net.UnixAddr{Name: address, Net: kind})
		} else {
			l, err = net.Listen(kind, address)
		}
		if err != nil {
			r.t.Errorf("listen: %v", err)
			return
		}
		r.t.Cleanup(func() { l.Close() })
	}
	r.Run(r.t, "mkdir", "-p", "-m", "755", "/run/systemd/journal", "/var/lib/mysql", "/var/lib/otherapp")
	for path, kind := range map[string]string{"/run/docker.sock": "unix", "/var/lib/mysql/mysql.sock": "unix", "/run/dbus.sock": "unix", "/var/lib/otherapp/app.sock": "unix", "/run/systemd/journal/dev-log": "unixgram"} {
		listen(kind, r.Path(path))
		if err := os.Chmod(r.Path(path), 0o666); err != nil {
			r.t.Fatal(err)
		}
	}
	site.Apps = []string{"/var/lib/otherapp/app.sock"}
	r.Inet.Run(r.t, "ip", "addr", "add", "192.168.77.1/32", "dev", "lo")
	r.Inet.Run(r.t, "ip", "addr", "add", "169.254.169.254/32", "dev", "lo")
	r.Host.Do(r.t, func() {
		listen("unix", "@of-the-host")
		listen("tcp", "127.0.0.1:7777")
		listen("tcp", "0.0.0.0:7778")
	})
	r.Inet.Do(r.t, func() { listen("tcp", "0.0.0.0:80") })
	site.Loopback = []string{"127.0.0.1:7777", "127.0.0.1:7778"}
	site.Host = []string{"10.9.0.1:7778", nettest.HostAddr4.String() + ":7778"}
	master, tty, err := pty.Open() // somebody is logged in
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { master.Close(); tty.Close() })
	site.LAN = []string{"192.168.77.1:80", "169.254.169.254:80"}
}

// tell writes down what the hostile app is told.
func (r *realm) tell(site *hostile.Site) {
	r.t.Helper()
	text, err := json.Marshal(site)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(hostileDir+"/site.json", string(text))
}

// hostileReports are those in what the hostile app has printed, by their rows.
func hostileReports(t *testing.T, out string) map[string]hostile.Report {
	t.Helper()
	found := map[string]hostile.Report{}
	for line := range strings.Lines(out) {
		at := strings.Index(line, `{"name"`) // before it stands who of the vassal has printed it
		if at < 0 {
			continue
		}
		var r hostile.Report
		if err := json.Unmarshal([]byte(line[at:]), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		found[r.Name] = r
	}
	return found
}

// hostileVassals are who tries it.
var hostileVassals = map[string]struct {
	emperor string // what its ini says more
	vassal  string
	owner   int
	open    []string // rows that the ini opens
	rights  []string // rows that it opens to the app alone, and not to a command beside it
}{
	"an app":                            {vassal: hostileIni},
	"an app, strictly":                  {vassal: hostileIni + "confine = strict\n"},
	"an app of root's":                  {vassal: hostileIni + "uid = root\ngid = root\nconfine = default\n"}, // it owns what only mounts and Landlock protect then
	"an app of a tenant":                {emperor: "emperor-tyrant = true\n", vassal: hostileIni, owner: 2001},
	"an app with a range of uids":       {vassal: hostileIni + "userns = auto\n"},
	"an app with a range, strictly":     {vassal: hostileIni + "userns = auto\nconfine = strict\n"},
	"root of a range of uids":           {vassal: hostileIni + "userns = auto\nuid = root\nconfine = default\n"},
	"an app of a tenant's with a range": {emperor: "emperor-tyrant = true\n", vassal: hostileIni + "userns = auto\n", owner: 2001},
	"root of a range, with capabilities": {
		vassal: hostileIni + "userns = auto\nuid = root\nconfine = default\ncap = chown,dac_override,fowner,setuid,setgid,kill,net_admin\n",
		rights: []string{"capabilities", "change-user", "change-groups"},
	},
	"an app without a network": {vassal: hostileIni + "network = none\n"},
	"an app in a bridge":       {vassal: hostileIni + "network = bridge:br0 10.100.0.1/24\n"},
	"an app in the host's network": {
		vassal: hostileIni + "network = host\nconfine = default\n",
		open:   []string{"foreign-abstract", "host-loopback", "host-services", "other-vassals", "private-networks"},
	},
	"an app with rights over its network": { // which is its own: the router and the host's know nothing of it
		vassal: hostileIni + "cap = net_admin,net_raw\n",
		rights: []string{"capabilities", "raise-capabilities", "packet-socket", "raw-ip", "spoof", "new-address", "new-route", "set-link", "packet-filter"},
	},
	"a daemon beside an app": {vassal: "[uwsgi]\nchdir = " + hostileDir + "\ncommand = sleep 4000\nattach-daemon = exec " + hostileLine},
}

// Whoever tries everything that he can think of from inside a vassal comes out
// nowhere, whether he is the app or a command beside it. The neighbour of a
// tenant's app is the same tenant's. // T14 T15 T17 T18 T19 T25
func TestHostileAppIsContained(t *testing.T) {
	t.Parallel()
	for name, v := range hostileVassals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, site := hostileRealm(t, nativeNetwork+"logto = /run/t/emperor.log\n"+v.emperor)
			r.writeAs(iniPath("neighbour"), agentIni+"tuntap-device-address = 10.9.7.7\n", v.owner, v.owner)
			r.start()
			r.reach("neighbour")
			site.Others, site.Foreign = []string{"10.9.7.7:8000"}, "10.9.7.7"
			r.tell(site)
			r.writeAs(iniPath("guest"), v.vassal, v.owner, v.owner)
			r.await("guest", "is known", func(s emperor.Status) bool { return s.State != "" })
			var out string
			last := hostile.Rows()[len(hostile.Rows())-1].Name
			r.await("guest", "has tried all", func(s emperor.Status) bool {
				out = r.mustRun("logs", "guest")
				return s.State == emperor.Running && strings.Contains(out, fmt.Sprintf("%q", last))
			})
			checkContained(t, "the app", hostileReports(t, out), slices.Concat(v.open, v.rights))
			out, _ = r.run("exec", "guest", "--", hostileDir+"/hostile", "-json", "-site", "@"+hostileDir+"/site.json")
			checkContained(t, "a command beside it", hostileReports(t, out), v.open)
			if slices.Contains(v.rights, "spoof") && r.ps("guest").Drops["spoofed"] == 0 {
				t.Error("the router has refused none of the packets from another's address")
			}
			r.stop(syscall.SIGTERM)
		})
	}
}

func checkContained(t *testing.T, who string, found map[string]hostile.Report, open []string) {
	t.Helper()
	for _, row := range hostile.Rows() {
		want := hostile.Contained
		if slices.Contains(open, row.Name) {
			want = hostile.Escaped
		}
		if f, ok := found[row.Name]; !ok || f.Outcome != want {
			t.Errorf("%s: %s %s: %s: %s", who, f.Outcome, row.Name, row.Tries, f.Detail)
		}
	}
}

// mostAbsent is how many rows may have nothing to try on a machine: its kernel has
// no modules, say, or no such call.
const mostAbsent = 12

// Every row can tell an escape: as root, in a world without a jail, each says
// that it has escaped, or that there is no such thing.
func TestHostileAppEscapesWithoutConfinement(t *testing.T) {
	t.Parallel()
	r, site := hostileRealm(t, nativeNetwork+"logto = /run/t/emperor.log\n")
	r.drop("neighbour", agentIni+"tuntap-device-address = 10.9.7.7\n")
	r.start()
	r.reach("neighbour")
	site.Others, site.Foreign = []string{"10.9.7.7:8000"}, "10.9.7.7"
	r.tell(site)
	// With a descriptor, a variable, a group and a key of who starts it.
	out, _ := r.Try(t, "sh", "-c", "exec 9</; SECRET_TOKEN=1 exec setpriv --groups 6 "+realmDir+"/with-key-run "+hostileDir+"/hostile -json -site @"+hostileDir+"/site.json")
	found := hostileReports(t, out)
	// Its working directory is outside of its root, as it is for who forgets to change it.
	outside := r.Run(t, "/usr/bin/python3", "-c", "import os; os.chdir('/'); os.chroot('"+hostileDir+"'); os.execv('/hostile', ['hostile', '-row', 'working-directory'])")
	var climbed hostile.Report
	if err := json.Unmarshal([]byte(outside), &climbed.Finding); err != nil {
		t.Fatalf("%q: %v", outside, err)
	}
	found["working-directory"] = climbed
	missing := 0
	for _, row := range hostile.Rows() {
		switch f, ok := found[row.Name]; {
		case !ok:
			t.Errorf("it did not try %s; it printed %.2000s", row.Name, out)
			return
		case f.Outcome == hostile.Escaped:
		case f.Absent && missing < mostAbsent:
			missing++
			t.Logf("%s: %s", row.Name, f.Detail)
		default:
			t.Errorf("%s: %s: %s", row.Name, f.Outcome, f.Detail)
		}
	}
	r.stop(syscall.SIGTERM)
}
