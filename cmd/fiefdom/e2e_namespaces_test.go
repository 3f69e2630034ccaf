package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// rootfs makes a root file system with an agent in /bin.
func (r *realm) rootfs(path string) {
	r.t.Helper()
	nettest.Rootfs(r.t, r.Path(path), agentPath(r.t), "ls", "cat", "grep", "ps", "hostname", "id", "readlink")
}

// namespacesOf are a process' namespaces as "net=net:[4026531840]", a line each.
func (r *realm) namespacesOf(pid int) map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for _, name := range []string{"ipc", "mnt", "net", "pid", "user", "uts"} {
		link, err := os.Readlink(r.Path("/proc/" + strconv.Itoa(pid) + "/ns/" + name))
		if err != nil {
			r.t.Fatal(err)
		}
		all[name] = link
	}
	return all
}

// ownOf lists the namespaces in which a process is not with another.
func (r *realm) ownOf(pid, other int) string {
	r.t.Helper()
	one, two := r.namespacesOf(pid), r.namespacesOf(other)
	var own []string
	for _, name := range []string{"ipc", "mnt", "net", "pid", "user", "uts"} {
		if one[name] != two[name] {
			own = append(own, name)
		}
	}
	return strings.Join(own, " ")
}

// The inis of uWSGI's Namespaces document, with an app that can be asked: the
// documents' lines as they are, their folders below /run/t.
func TestNamespacesDocument(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.rootfs("/run/t/distros/precise")
	r.rootfs("/run/t/apps/app1")
	r.Run(t, "sh", "-e", "-c", `
mkdir /run/t/ns /run/t/distros/precise/.old_root /run/t/distros/precise/dev/pts
mkdir /run/t/apps/app1/nfs /run/t/apps/app1/data /run/t/nfs1
mount -t tmpfs none /run/t/apps/app1/nfs
echo from nfs >/run/t/apps/app1/nfs/file
echo from nfs1 >/run/t/nfs1/file`)
	r.drop("pivot", `[uwsgi]
unshare = fs
hook-post-jail = mount:none /run/t/distros/precise /run/t/ns bind
pivot_root = /run/t/ns /run/t/ns/.old_root
; bind mount some useful fs like /dev and /proc
hook-as-root = mount:proc none /proc nodev hidepid=2
hook-as-root = mount:none /.old_root/dev /dev bind
hook-as-root = mount:none /.old_root/dev/pts /dev/pts bind
; umount the old tree
hook-as-root = umount:/.old_root rec,detach
command = /bin/agent
`)
	r.drop("rooted", `[uwsgi]
# app1 jail is located here
namespace = /run/t/apps/app1:mybeautifulhostname
# nfs share mounted on the host side
namespace-keep-mount = /run/t/apps/app1/nfs
namespace-keep-mount = /run/t/nfs1:/data
namespace-keep-mount = /dev
command = /bin/agent
`)
	r.drop("detached", "[uwsgi]\nunshare = ipc,uts\nhook-post-jail = hostname:detached\ncommand = AGENT\n")
	r.start()

	s := r.reach("pivot")
	if got := r.mustSh(s, "ls /.old_root; ls /dev/null /dev/pts/ptmx; grep -c . /proc/self/mountinfo; grep -o hidepid=invisible /proc/self/mountinfo; ps -e | grep -c agent"); got != "/dev/null\n/dev/pts/ptmx\n4\nhidepid=invisible\n1\n" {
		t.Errorf("after pivot_root the app sees:\n%s\n%s", got, r.mustSh(s, "ls -a /; cat /proc/self/mountinfo; ps -e"))
	}
	s = r.reach("rooted")
	if got := r.mustSh(s, "hostname; cat /nfs/file /data/file; grep -vc ' /dev' /proc/self/mountinfo; ps -e | grep -c agent"); got != "mybeautifulhostname\nfrom nfs\nfrom nfs1\n4\n1\n" {
		t.Errorf("in its namespace the app sees:\n%s\n%s", got, r.mustSh(s, "cat /proc/self/mountinfo; ps -e"))
	}
	if got := r.ownOf(s.PID, r.cmdPID()); got != "ipc mnt net pid uts" {
		t.Errorf("namespace gives it %s", got)
	}
	s = r.reach("detached")
	if got := r.ownOf(s.PID, r.cmdPID()); got != "ipc mnt net pid uts" || r.mustSh(s, "hostname") != "detached\n" {
		t.Errorf("unshare = ipc,uts, and its confinement, give it %s", got)
	}
	// All of it again for the next generation, and nothing on the host.
	r.mustRun("restart", "pivot")
	r.reach("pivot")
	if mounts := r.Run(t, "cat", "/proc/self/mounts"); strings.Contains(mounts, "/run/t/ns") {
		t.Errorf("mounts of the host:\n%s", mounts)
	}
	r.Run(t, "umount", "/run/t/apps/app1/nfs")
}

// The vassals of uWSGI's Emperor document, in the namespaces that it names, and
// one with a network of its own where the emperor has none.
func TestEmperorDocumentsNamespaces(t *testing.T) {
	t.Parallel()
	r := newRealm(t, "[uwsgi]\nemperor = /run/t/vassals\nemperor-use-clone = fs,ipc,pid,uts\n", map[string]string{
		"foobar": `[uwsgi]
; set the hostname
exec-as-root = hostname foobar
; umount /proc and remount it
exec-as-root = umount /proc
exec-as-root = mount -t proc proc /proc
; drop privileges
uid = nobody
gid = nogroup
; and then
unprivileged-binary-patch-arg = /bin/sh -c "hostname; ps aux; echo end; exec sleep 1000"
`,
		"alone": `[uwsgi]
unshare = net
exec-as-root = ip link set lo up
command = /bin/sh -c "ip -o link | wc -l; ip -o address show dev lo; echo end; exec sleep 1000"
`,
	})
	logs := func(name string) string {
		t.Helper()
		r.awaitState(name, emperor.Running)
		var out string
		nettest.Eventually(t, patience, name+" has said all", func() bool {
			out = r.mustRun("logs", name)
			return strings.Contains(out, "end\n")
		})
		return out
	}
	if out := logs("foobar"); !strings.Contains(out, "foobar\n") || strings.Contains(out, "fiefdom run") || !strings.Contains(out, "nobody") {
		t.Errorf("foobar sees:\n%s", out)
	}
	if out := logs("alone"); !strings.Contains(out, "1\n") || !strings.Contains(out, "127.0.0.1/8") {
		t.Errorf("alone sees:\n%s", out)
	}
}

// cmdPID is the emperor's pid in the world.
func (r *realm) cmdPID() int {
	r.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(r.read("/run/fiefdom/emperor/lock")))
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// With a user namespace everything else works as without, and the app's root,
// if it is any, is none of the host.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-use-clone = net,pid,fs,ipc,uts,user\n")
	r.write("/run/t/app.pl", "sub { [200, [], ['served']] }\n")
	for name, text := range map[string]string{
		"blog": agentIni,
		"real": "[uwsgi]\nplugins-dir = /usr/lib/uwsgi/plugins\nplugins = http,psgi\npsgi = /run/t/app.pl\nhttp-socket = :8000\nhttp-socket-modifier1 = 5\nprocesses = 2\n",
		"shop": "[uwsgi]\nuid = 2000\ngid = 2000\nadd-gid = 2001\nexec-post-jail = mount -t tmpfs none /mnt && touch /mnt/by-root\ncommand = AGENT\n",
		"raw":  "[uwsgi]\nexec-as-root = ip address add 10.9.7.7/16 dev eth0\ncommand = AGENT\n",
	} {
		r.drop(name, text)
	}
	r.start()
	if page, err := r.get(r.reach("real").Addresses[0], "/"); err != nil || page != "served" {
		t.Errorf("a real uWSGI's page: %q, %v", page, err)
	}
	for _, name := range []string{"blog", "shop", "real"} {
		s := r.reach(name)
		if got := r.ownOf(s.PID, r.cmdPID()); got != "ipc mnt net pid user uts" {
			t.Errorf("%s has its own %s", name, got)
		}
		status := statusOf(r.proc(s.PID, "status"))
		if status["CapBnd"] != noCaps || status["CapEff"] != noCaps || status["NoNewPrivs"] != "1" {
			t.Errorf("%s: %v", name, status)
		}
		r.mustRun("restart", name)
	}
	if got := r.mustSh(r.reach("shop"), "id -u; id -G; ls /mnt"); got != "2000\n2000 2001\nby-root\n" {
		t.Errorf("shop is\n%s", got)
	}
	// Its hooks are root there, and have no right over the network.
	if s := r.awaitState("raw", emperor.Backoff); !strings.Contains(s.Error, "raw.ini:2: ") || !strings.Contains(s.Error, "not permitted") {
		t.Errorf("raw: %q", s.Error)
	}
}

// In tyrant mode the user namespace knows the owner only, and whatever his ini
// says takes rights away, or is an error with its line.
func TestTyrantNamespaces(t *testing.T) { // T31
	t.Parallel()
	const owner, group = 2001, 2002
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nemperor-use-clone = pid,fs,user\nexec-as-vassal = id -u >>/run/t/as-vassal\n")
	r.writeAs("/run/t/as-vassal", "", owner, group)
	refused := map[string]string{
		"pivot_root": "pivot_root = / /mnt", "namespace": "namespace = /run/t", "setns": "setns = /run/t/ns", "setns-socket": "setns-socket = /run/t/ns",
		"cgroup": "cgroup = /sys/fs/cgroup/unified/mine", "prio": "prio = -1", "hooks": "exec-asap = touch /run/t/pwned", "cap": "cap = sys_admin", "chroot": "chroot = /run",
		"call": "call-as-root = system",
	}
	for name, line := range refused {
		r.writeAs(iniPath(name), "[uwsgi]\ncommand = AGENT\n"+line+"\n", owner, group)
	}
	r.writeAs(iniPath("blog"), "[uwsgi]\nunshare = ipc,uts\nlimit-nproc = 500\nmax-fd = 200\nprio = 19\nwritable = /run/t/as-vassal\nlogto = /run/t/blog.log\ncommand = AGENT\n", owner, group)
	r.writeAs("/run/t/blog.log", "", owner, group)
	r.start()
	s := r.reach("blog")
	status := statusOf(r.proc(s.PID, "status"))
	if status["Uid"] != "2001 2001 2001 2001" || status["Gid"] != "2002 2002 2002 2002" || status["CapBnd"] != noCaps || status["NoNewPrivs"] != "1" {
		t.Errorf("blog runs as %v", status)
	}
	if got := strings.Join(strings.Fields(r.proc(s.PID, "uid_map")+r.proc(s.PID, "gid_map")), " "); got != "2001 2001 1 2002 2002 1" {
		t.Errorf("its user namespace knows %s", got)
	}
	if got := r.ownOf(s.PID, r.cmdPID()); got != "ipc mnt net pid user uts" {
		t.Errorf("it has its own %s", got)
	}
	if got := strings.Join(strings.Fields(r.proc(s.PID, "limits")), " "); !strings.Contains(got, "Max processes 500 500") || !strings.Contains(got, "Max open files 200 200") {
		t.Errorf("limits: %s", got)
	}
	if got := r.read("/run/t/as-vassal"); got != "2001\n" {
		t.Errorf("as-vassal ran as %q", got)
	}
	for name := range refused {
		if s := r.awaitState(name, emperor.Invalid); !strings.Contains(s.Error, iniPath(name)+":3: ") {
			t.Errorf("%s: %q", name, s.Error)
		}
	}
	if _, err := r.Try(t, "test", "!", "-e", "/run/t/pwned"); err != nil {
		t.Error("a tenant's hook has run")
	}
}

// All phases in their order, the emperor's own around its vassals'.
func TestAllPhasesOfHooks(t *testing.T) {
	t.Parallel()
	var emperors, vassals, want strings.Builder
	phases := []string{"as-user", "as-root", "post-jail", "in-jail", "pre-jail", "asap"} // not the order in which they run
	for _, ph := range phases {
		emperors.WriteString("exec-" + ph + " = echo emperor " + ph + " >>/run/t/order\n")
		vassals.WriteString("exec-" + ph + " = echo vassal " + ph + " $KIND >>/run/t/order\n")
	}
	vassals.WriteString("writable = /run/t\n")
	emperors.WriteString("exec-as-vassal = echo as-vassal >>/run/t/order\nexec-as-user-atexit = echo at exit >>/run/t/order\n")
	for _, ph := range []string{"asap", "pre-jail", "in-jail", "post-jail", "as-root", "as-user"} {
		want.WriteString("emperor " + ph + "\n")
	}
	want.WriteString("as-vassal\n")
	for _, ph := range []string{"asap", "pre-jail", "in-jail", "post-jail", "as-root", "as-user"} {
		want.WriteString("vassal " + ph + " of hooks\n")
	}
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+emperors.String())
	r.write("/run/t/order", "")
	if err := os.Chmod(r.Path("/run/t/order"), 0o666); err != nil {
		t.Fatal(err)
	}
	r.drop("blog", "[uwsgi]\n"+vassals.String()+"hook-asap = putenv:KIND=of hooks\ncommand = AGENT\n")
	r.start()
	r.reach("blog")
	if got := r.read("/run/t/order"); got != want.String() {
		t.Errorf("hooks ran as\n%swant\n%s", got, want.String())
	}
	r.stop(syscall.SIGTERM)
	if got := r.read("/run/t/order"); got != want.String()+"at exit\n" {
		t.Errorf("after the end\n%s", got)
	}
}

// The phases of a running uwsgi are its own, and stay in it.
func TestPhasesOfARealUWSGI(t *testing.T) {
	t.Parallel()
	nettest.Program(t, "uwsgi-core")
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/app.pl", "sub { [200, [], ['served']] }\n")
	r.write("/run/t/order", "")
	if err := os.Chmod(r.Path("/run/t/order"), 0o666); err != nil {
		t.Fatal(err)
	}
	var phases strings.Builder
	for _, ph := range []string{"as-user-atexit", "accepting1-once", "post-app", "pre-app", "as-user", "as-root"} {
		phases.WriteString("hook-" + ph + " = appendn:/run/t/order " + ph + "\n")
	}
	r.drop("real", "[uwsgi]\nplugins-dir = /usr/lib/uwsgi/plugins\nplugins = http,psgi\npsgi = /run/t/app.pl\nhttp-socket = :8000\nhttp-socket-modifier1 = 5\nwritable = /run/t\n"+phases.String())
	r.start()
	r.reach("real")
	r.mustRun("stop", "real")
	if got := r.read("/run/t/order"); got != "as-root\nas-user\npre-app\npost-app\naccepting1-once\nas-user-atexit\n" {
		t.Errorf("hooks ran as\n%s", got)
	}
}

// What the emperor's ini leaves to vassals at most, and what theirs leave to
// their apps; a cgroup of the ini holds the app and goes on after it.
func TestBoundsOfVassals(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	r := layRealm(t, w, "emperor", "[uwsgi]\nemperor = /run/t/vassals\nvassals-cap = net_raw,setuid,setgid\n")
	nettest.Unified(t)
	tree := strings.TrimSpace(r.Run(t, "sh", "-c", "awk '$3 == \"cgroup2\" {print $2}' /proc/mounts | tail -n 1"))
	r.drop("root", "[uwsgi]\nmax-fd = 55\ncgroup = "+tree+"/limited\ncgroup-opt = cgroup.max.depth=3\ncommand = sleep 1000\n")
	r.drop("more", "[uwsgi]\ncap = sys_admin\ncommand = sleep 1000\n")
	r.start()
	s := r.awaitState("root", emperor.Running)
	if status := statusOf(r.proc(s.PID, "status")); status["CapBnd"] != "00000000000021c0" || status["CapEff"] != "00000000000021c0" {
		t.Errorf("it has %v", status)
	}
	if got := r.proc(s.PID, "cgroup"); !strings.Contains(got, "/limited/root.") {
		t.Errorf("its cgroups: %s", got)
	}
	if got := r.read(tree + "/limited/cgroup.max.depth"); got != "3\n" {
		t.Errorf("cgroup.max.depth is %q", got)
	}
	if got := strings.Join(strings.Fields(r.proc(s.PID, "limits")), " "); !strings.Contains(got, "Max open files 55 55") {
		t.Errorf("limits: %s", got)
	}
	if s := r.awaitState("more", emperor.Invalid); !strings.Contains(s.Error, "not in emperor-cap") {
		t.Errorf("more: %q", s.Error)
	}
	// A killed emperor's successor finds the app, whose cgroup is not below his.
	r.die()
	r.start()
	if again := r.awaitState("root", emperor.Running); again.PID != s.PID {
		t.Errorf("it is not the old one: %+v", again)
	}
	if n := strings.Count(r.Run(t, "ps", "-eo", "args"), "sleep 1000"); n != 1 {
		t.Errorf("%d apps run", n)
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait()
	r.Run(t, "rmdir", tree+"/limited") // it stays, as under uWSGI, and is empty
	r.checkNothingLeft()
}

// Namespaces are given and taken by sockets, between vassals of ours and those
// of a real uWSGI in both directions.
func TestSetnsWithARealUWSGI(t *testing.T) {
	t.Parallel()
	nettest.Program(t, "uwsgi-core")
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", "[uwsgi]\nunshare = uts,ipc\nhook-post-jail = hostname:blogs\nwritable = /run/t\nsetns-socket = /run/t/blog.ns\ncommand = AGENT\n")
	r.drop("guest", "[uwsgi]\nsetns = /run/t/blog.ns\ncommand = /bin/sh -c \"hostname >/run/t/guest/host; ip -o address >/run/t/guest/ip; exec sleep 1000\"\n")
	r.drop("visitor", "[uwsgi]\nsetns = /run/t/real.ns\ncommand = /bin/sh -c \"hostname >/run/t/guest/real; exec sleep 1000\"\n")
	r.Run(t, "install", "-d", "-m", "777", "/run/t/guest")
	real := func(args ...string) {
		r.Start(t, exec.Command("uwsgi-core", append([]string{"--master"}, args...)...))
	}
	real("--unshare", "uts", "--setns-socket", "/run/t/real.ns", "--exec-as-root", "hostname reals", "--socket", "/run/t/real.socket")
	r.start()
	s := r.reach("blog")
	r.awaitState("guest", emperor.Running)
	r.awaitState("visitor", emperor.Running)
	real("--setns", "/run/t/blog.ns", "--exec-as-root", "hostname >/run/t/guest/theirs; ip -o address >>/run/t/guest/theirs", "--socket", "/run/t/their.socket")
	has := func(file, what string) {
		t.Helper()
		nettest.Eventually(t, patience, file+" has "+what, func() bool { return strings.Contains(r.read("/run/t/guest/"+file), what) })
	}
	has("host", "blogs\n")
	has("ip", s.Addresses[0].String())
	has("real", "reals\n")
	has("theirs", "blogs\n")
	has("theirs", s.Addresses[0].String())
}
