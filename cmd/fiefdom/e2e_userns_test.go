package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// rangeOf is the range of uids that a vassal has, as status tells it.
func (r *realm) rangeOf(s emperor.Status) (first int) {
	r.t.Helper()
	if s.Confinement == nil || s.Confinement.Users == nil {
		r.t.Fatalf("%s has no range: %+v", s.Name, s.Confinement)
	}
	first = s.Confinement.Users.First
	for _, kind := range []string{"uid_map", "gid_map"} {
		if got, want := strings.Join(strings.Fields(r.proc(s.PID, kind)), " "), fmt.Sprintf("0 %d 65536", first); got != want {
			r.t.Errorf("%s of %s is %q, want %q", kind, s.Name, got, want)
		}
	}
	return first
}

const idsOfApp = "id -u; id -g; cat /proc/self/uid_map; readlink /proc/self/ns/user /proc/self/ns/mnt"

// Vassals with ranges of uids keep them, and all that is beside their apps, over
// the emperor's death and a restart of everything.
func TestRangesOfVassals(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-ec", "mkdir -p /run/t/blog/data; chown -R 3001:3001 /run/t/blog; chmod 700 /run/t/blog/data")
	r.rootfs("/var/lib/apps/root")
	r.Run(t, "mkdir", "-p", "/var/lib/apps/root/run", "/var/lib/apps/root/sys")
	r.drop("blog", agentIni+`userns = auto
uid = 3001
gid = 3001
chdir = /run/t/blog
writable = /run/t/blog/data
health = exec:/bin/sh -c 'test $(cat /proc/self/uid_map | wc -w) = 3 && test -O /run/t/blog/data && echo ill-or-well > /run/t/blog/data/checked'
health-interval = 1
`)
	r.drop("shop", "[uwsgi]\ncommand = /bin/agent\nuserns = auto\nrootfs = /var/lib/apps/root\n")
	r.drop("mail", "[uwsgi]\ncommand = AGENT\nuserns = auto\nattach-daemon = "+idsOfApp+"; echo up; exec sleep 1009\nsmart-attach-daemon = /tmp/pid sleep 1010 & echo $! >/tmp/pid\ncron = -1 -1 -1 -1 -1 "+idsOfApp+"; echo rung\n")
	r.start()
	before := map[string]emperor.Status{}
	firsts := map[string]int{}
	for _, name := range []string{"blog", "shop", "mail"} {
		before[name] = r.reach(name)
	}
	before["mail"] = r.await("mail", "has its daemons", func(s emperor.Status) bool { return attached(s, "id").PID != 0 && attached(s, "sleep").PID != 0 })
	for _, name := range []string{"blog", "shop"} {
		firsts[name] = r.rangeOf(before[name])
	}
	// One that went into the background is in the range as the app is.
	if back := r.proc(attached(before["mail"], "sleep").PID, "uid_map"); back != r.proc(before["mail"].PID, "uid_map") || len(strings.Fields(back)) != 3 {
		t.Errorf("the daemon in the background has %q", back)
	}
	if a, b := firsts["blog"], firsts["shop"]; a < b+vassal.RangeSize && b < a+vassal.RangeSize {
		t.Errorf("blog's range begins at %d, shop's at %d", a, b)
	}
	if uid := before["blog"].UID; uid != firsts["blog"]+3001 {
		t.Errorf("status says uid %d", uid)
	}
	if out := r.mustRun("status", "shop"); !strings.Contains(out, fmt.Sprintf("own pid mnt ipc uts user, uids %d-%d, ", firsts["shop"], firsts["shop"]+65535)) {
		t.Errorf("status: %s", out)
	}
	if got := r.mustSh(before["blog"], "id -u; echo x > data/file; cat data/file; stat -c %u data/file"); got != "3001\nx\n3001\n" {
		t.Errorf("blog says %q", got)
	}
	if owner := r.Run(t, "stat", "-c", "%u:%g", "/run/t/blog/data/file"); owner != "3001:3001\n" {
		t.Errorf("on disk the file belongs to %q", owner)
	}
	if got := r.mustSh(before["shop"], "id -u; echo x >/run/x && echo made"); got != "0\nmade\n" {
		t.Errorf("shop says %q", got)
	}
	for _, name := range []string{"blog", "shop"} {
		app := r.mustSh(before[name], idsOfApp)
		if got := r.mustRun("exec", name, "--", "sh", "-c", idsOfApp); got != app {
			t.Errorf("a command beside %s is %q, the app %q", name, got, app)
		}
	}
	nettest.Eventually(t, patience, "the check of blog is its app's user", func() bool {
		owner, err := r.Try(t, "stat", "-c", "%u", "/run/t/blog/data/checked")
		return err == nil && owner == "3001\n"
	})

	r.die()
	r.start()
	for name, s := range before {
		if diff := unlike(s, r.reach(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"blog", "shop"} {
		if got := r.mustRun("exec", name, "--", "sh", "-c", idsOfApp); got != r.mustSh(before[name], idsOfApp) {
			t.Errorf("after adoption a command beside %s is %q", name, got)
		}
	}
	r.stop(syscall.SIGTERM)
	r.start()
	for name, first := range firsts {
		if again := r.rangeOf(r.reach(name)); again != first {
			t.Errorf("%s has a range from %d now, and had one from %d", name, again, first)
		}
	}
	r.stop(syscall.SIGTERM)
}

// An owner's app may be root in a root of the owner's, and is nobody but the owner
// on disk; another's root is not his to take.
func TestRangesOfOwners(t *testing.T) {
	t.Parallel()
	r := layPoliced(t, "[policy]\n")
	for name, uid := range map[string]int{"alice": alice, "bob": bob} {
		dir := "/var/lib/homes/" + name
		nettest.Rootfs(t, r.Path(dir+"/root"), agentPath(t), "ls", "cat", "id", "cp", "chmod", "chown", "rm")
		r.Run(t, "sh", "-ec", fmt.Sprintf("mkdir -p %s/root/run %[1]s/root/sys %[1]s/root/data; echo secret of %[2]s >%[1]s/root/data/secret; chmod 600 %[1]s/root/data/secret; chown -R %[3]d:%[3]d %[1]s; chmod 700 %[1]s", dir, name, uid))
	}
	// Of root's, in alice's tree: she reads it no more than on the host.
	r.Run(t, "sh", "-ec", "echo of root >/var/lib/homes/alice/root/etc/rooted; chmod 600 /var/lib/homes/alice/root/etc/rooted")
	const root = "userns = auto\nrootfs = /var/lib/homes/alice/root\nwritable = /data\n"
	r.writeAs(iniPath("web"), "[uwsgi]\ncommand = /bin/agent\n"+root+"cap = chown,dac_override,fowner,fsetid,setuid,setgid\n", alice, alice)
	r.writeAs(iniPath("plain"), "[uwsgi]\ncommand = /bin/agent\n"+root, alice, alice)
	r.writeAs(iniPath("thief"), "[uwsgi]\ncommand = /bin/agent\n"+root, bob, bob)
	r.writeAs(iniPath("etc"), "[uwsgi]\ncommand = /bin/agent\nuserns = auto\nrootfs = /etc\n", bob, bob)
	r.writeAs(iniPath("bare"), "[uwsgi]\ncommand = /bin/agent\nrootfs = /var/lib/homes/alice/root\n", alice, alice)
	r.writeAs(iniPath("more"), "[uwsgi]\ncommand = AGENT\nuserns = auto\ncap = sys_admin\n", alice, alice)
	r.start()
	for _, name := range []string{"web", "plain"} {
		s := r.reach(name)
		if got := r.mustSh(s, "id -u; cat /data/secret; cat /etc/rooted || echo refused"); got != "0\nsecret of alice\ncat: /etc/rooted: Permission denied\nrefused\n" {
			t.Errorf("%s says %q", name, got)
		}
		r.mustSh(s, "cp /bin/cat /data/"+name+" && chmod 4755 /data/"+name)
		if got := r.Run(t, "stat", "-c", "%u:%g %a", "/var/lib/homes/alice/root/data/"+name); got != fmt.Sprintf("%d:%d 4755\n", alice, alice) {
			t.Errorf("on disk what %s made belongs to %s", name, got)
		}
		for _, id := range []string{"5", strconv.Itoa(alice)} { // of whom one is the disk's root without a capability
			if out, err := r.sh(s, "chown "+id+" /data/"+name); err == nil || !strings.Contains(out, "changing ownership") {
				t.Errorf("%s gave its file to %s: %q, %v", name, id, out, err)
			}
		}
		r.mustSh(s, "rm /data/"+name)
	}
	for name, want := range map[string]string{
		"thief": "ermission denied", "etc": "an owner's root has to be his own",
	} {
		s := r.await(name, "is refused", func(s emperor.Status) bool { return s.Error != "" })
		if !strings.Contains(s.Error, want) {
			t.Errorf("%s: %q, want %q", name, s.Error, want)
		}
	}
	r.refused("bare", "rootfs is not allowed")
	r.refused("more", "cap is not allowed")
	var leases struct{ Ranges map[string]int }
	if err := json.Unmarshal([]byte(r.Run(t, "cat", "/var/lib/fiefdom/emperor/leases.json")), &leases); err != nil || leases.Ranges["web"] == 0 || leases.Ranges["web"] == leases.Ranges["plain"] {
		t.Errorf("leases: %+v, %v", leases, err)
	}
	if got := r.Run(t, "sh", "-c", "find / -xdev -uid +"+strconv.Itoa(leases.Ranges["plain"]-1)+" -path '/var/lib/homes/*' 2>/dev/null | head -3"); got != "" {
		t.Errorf("on disk somebody of a range has %s", got)
	}
	r.stop(syscall.SIGTERM)
}
