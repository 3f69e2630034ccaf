package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	policyFile = realmDir + "/policy.ini"
	policed    = nativeNetwork + "emperor-tyrant = true\ntyrant-policy = " + policyFile + "\n"
)

// alice and bob are owners of vassals.
const alice, bob = 2001, 2002

// layPoliced lays a realm in tyrant mode with a policy, where alice and bob are users.
func layPoliced(t *testing.T, policy string) *realm {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", policed)
	r.Run(t, "sh", "-e", "-c", `
echo alice:x:2001:2001::/nonexistent:/bin/false >>/etc/passwd
echo bob:x:2002:2002::/nonexistent:/bin/false >>/etc/passwd
echo alice:x:2001: >>/etc/group
echo bob:x:2002: >>/etc/group
echo staff2:x:2010:bob >>/etc/group`)
	r.write(policyFile, policy)
	return r
}

// hers writes an ini of alice's.
func (r *realm) hers(name, text string) {
	r.t.Helper()
	r.writeAs(iniPath(name), "[uwsgi]\ncommand = AGENT\n"+text, alice, alice)
}

// his writes an ini of bob's.
func (r *realm) his(name, text string) {
	r.t.Helper()
	r.writeAs(iniPath(name), "[uwsgi]\ncommand = AGENT\n"+text, bob, bob)
}

// refused waits until a vassal is invalid for a reason.
func (r *realm) refused(name, want string) {
	r.t.Helper()
	if s := r.awaitState(name, emperor.Invalid); !strings.Contains(s.Error, want) || s.PID != 0 {
		r.t.Errorf("%s, pid %d: %q, want %q", name, s.PID, s.Error, want)
	}
}

// An owner has what the operator's policy says, and is told which line does not have
// it otherwise: by ps, by check, and for an ini that is only to be.
func TestTyrantPolicy(t *testing.T) {
	t.Parallel()
	r := layPoliced(t, `# what everybody has
[policy]
vassal-names = {owner}-*
unshare = pid
publish = 8000-8099
vassals = 2
[user:alice]
publish = 80
publish = 8000-8099
[group:staff2]
unshare = any
`)
	r.hers("alice-web", "publish = 80:8000\n")
	r.his("bob-web", "publish = 81:8000\n")
	r.his("bob-ns", "unshare = pid,uts\n")
	r.hers("alice-ns", "unshare = pid,uts\n")
	r.hers("shop", "")
	r.start()
	for _, name := range []string{"alice-web", "bob-ns"} {
		r.reach(name)
	}
	wrong := map[string]string{
		"bob-web":  iniPath("bob-web") + ":3: publish = 81:8000/tcp is beyond the operator's policy for bob, " + policyFile + ":5: publish = 8000-8099 in [policy]",
		"alice-ns": iniPath("alice-ns") + ":3: unshare = uts is beyond the operator's policy for alice, " + policyFile + ":4: unshare = pid in [policy]",
		"shop":     iniPath("shop") + `: the name "shop" is beyond the operator's policy for alice, ` + policyFile + ":3: vassal-names = {owner}-* in [policy]",
	}
	checked, code := r.run("check", realmDir+"/emperor.ini")
	if code != exitInvalid {
		t.Errorf("check: exit code %d", code)
	}
	for name, want := range wrong {
		r.refused(name, want)
		if !strings.Contains(checked, want) {
			t.Errorf("check, without %q:\n%s", want, checked)
		}
	}
	if out := r.mustRun("status", "alice-web"); !strings.Contains(out, "policy: publish = 80 ("+policyFile+":8, [user:alice])\n") || !strings.Contains(out, "policy: unshare = pid ("+policyFile+":4, [policy])\n") {
		t.Errorf("status:\n%s", out)
	}
	// What is only to be, as whose it will be.
	r.write("/run/t/new.ini", "[uwsgi]\ncommand = AGENT\npublish = 80:8000\n")
	if err := os.Rename(r.Path("/run/t/new.ini"), r.Path("/run/t/bob-new.ini")); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{
		"bob":   "publish = 80:8000/tcp is beyond the operator's policy for bob",
		"alice": `the name "bob-new" is beyond the operator's policy for alice`,
		"root":  "belongs to 0:0 (root)",
	} {
		out, code := r.run("check", "--config", realmDir+"/emperor.ini", "--as", who, "/run/t/bob-new.ini")
		if code != exitInvalid || !strings.Contains(out, want) {
			t.Errorf("check as %s: exit code %d\n%s", who, code, out)
		}
	}
	if out, code := r.run("check", "--as", "bob", "/run/t/bob-new.ini"); code != exitUsage || !strings.Contains(out, "name its ini by --config") {
		t.Errorf("check without an emperor: exit code %d\n%s", code, out)
	}
}

// Who came first has the places that an owner has, and who goes makes room.
func TestTyrantPolicyCountsVassals(t *testing.T) {
	t.Parallel()
	r := layPoliced(t, "[policy]\nvassals = 2\n")
	r.hers("a", "")
	r.hers("b", "")
	r.start()
	r.reach("a")
	r.reach("b")
	r.hers("c", "")
	r.his("d", "")
	r.reach("d")
	r.refused("c", iniPath("c")+": vassal number 3 is beyond the operator's policy for alice, "+policyFile+":2: vassals = 2 in [policy]")
	r.remove("a")
	r.reach("c")
}

// A policy that changes counts by HUP: who is beyond it now is stopped, others go on
// as the processes that they are. One that cannot be read changes nothing.
func TestTyrantPolicyChanges(t *testing.T) {
	t.Parallel()
	for _, orphans := range []string{"adopt", "kill"} {
		t.Run(orphans, func(t *testing.T) {
			t.Parallel()
			testPolicyChanges(t, orphans)
		})
	}
}

func testPolicyChanges(t *testing.T, orphans string) {
	r := layPoliced(t, "[policy]\npublish = 8000-8099\n")
	r.write(realmDir+"/emperor.ini", policed+"emperor-orphans = "+orphans+"\n")
	r.hers("web", "publish = 8001:8000\n")
	r.hers("idle", "publish = 8002:8000\n")
	r.hers("plain", "")
	r.start()
	for _, name := range []string{"web", "idle", "plain"} {
		r.reach(name)
	}
	before := r.reach("plain")
	r.mustRun("stop", "idle")
	hangUp := func(policy string) {
		r.write(policyFile, policy)
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	change := func(policy string) {
		was, err := r.api.Self(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hangUp(policy)
		nettest.Eventually(t, patience, "the emperor to be the next", func() bool {
			now, err := r.api.Self(t.Context())
			return err == nil && (orphans == "kill" || !now.Began.Equal(was.Began))
		})
	}
	hangUp("[policy]\npublsh = none\n")
	nettest.Eventually(t, patience, "the log to say what is wrong with the policy", func() bool {
		return strings.Contains(r.allLogged(), policyFile+":2: unknown option")
	})
	if s := r.ps("web"); s.State != emperor.Running {
		t.Errorf("web is %s by a policy that is bad", s.State)
	}
	const narrow = "[policy]\npublish = 9000-9099\n"
	change(narrow)
	for _, name := range []string{"web", "idle"} { // whom an operator stopped, too
		r.refused(name, iniPath(name)+":3: publish = 800")
		r.refused(name, "is beyond the operator's policy for alice, "+policyFile+":2: publish = 9000-9099 in [policy]")
	}
	if out := r.mustRun("events", "--json", "web"); !strings.Contains(out, `"kind":"beyond-policy"`) {
		t.Errorf("the events do not say why:\n%s", out)
	}
	if out, code := r.run("start", "web"); code == exitOK {
		t.Errorf("web is started all the same:\n%s", out)
	}
	if s := r.reach("plain"); orphans == "adopt" && s.PID != before.PID {
		t.Errorf("plain had pid %d and has %d", before.PID, s.PID)
	}
	if orphans == "adopt" { // who was killed, too, leaves nothing to the next that the policy does not have
		r.hers("web", "publish = 9001:8000\n")
		r.reach("web")
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		r.wait()
		r.write(policyFile, "[policy]\npublish = none\n")
		r.start()
		r.refused("web", "publish = none in [policy]")
	}
	change("[policy]\npublish = 8000-8099\npublish = 9000-9099\n")
	r.reach("web")
}

// An emperor does not start with a policy that he does not wholly understand, or that
// is not root's.
func TestBadPolicyRefusesTheStart(t *testing.T) {
	t.Parallel()
	r := layPoliced(t, "[policy]\n\nvassal = 2\n")
	for _, tt := range []struct{ policy, mode, want string }{
		{"[policy]\n\nvassal = 2\n", "644", policyFile + `:3: unknown option "vassal"; did you mean "vassals"?`},
		{"[user:carol]\n", "644", policyFile + `:1: no user "carol" on this machine`},
		{"[policy]\n", "666", "others than root may write it (mode 666)"},
	} {
		r.write(policyFile, tt.policy)
		r.Run(t, "chmod", tt.mode, policyFile)
		for _, command := range []string{"run", "check"} {
			if out, code := r.run(command, realmDir+"/emperor.ini"); code != exitInvalid || !strings.Contains(out, tt.want) {
				t.Errorf("%s: exit code %d, want %q\n%s", command, code, tt.want, out)
			}
		}
	}
}

// The example of a machine with many owners runs as it is printed.
func TestExampleHosting(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "")
	r.copyExample("hosting", realmDir, "/srv/vassals", "/run/t/vassals")
	r.Run(t, "sh", "-e", "-c", "echo alice:x:2001:2001::/nonexistent:/bin/false >>/etc/passwd; install -d -o 2001 -g 2001 /run/t/vassals/alice")
	r.api = emperor.NewClient(r.Path("/run/fiefdom/hosting")) // the ini's instance
	r.hers("alice/alice-shop", "publish = 8080:8000\nunshare = pid,fs\n")
	r.hers("alice/alice-mail", "publish = 25:8000\n")
	r.start()
	if s := r.reach("alice-shop"); s.UID != alice || len(s.Policy) == 0 {
		t.Errorf("%+v", s)
	}
	r.refused("alice-mail", "publish = 25:8000/tcp is beyond the operator's policy for alice, "+realmDir+"/policy.ini:")
}

// Who has a name keeps it, whatever folder somebody else puts an ini of that name
// into, also while the emperor is away. Who waits gets it when it is free.
func TestTyrantNamesAreKept(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nemperor = /run/t/a\nemperor = /run/t/b\n")
	for _, folder := range []string{"/run/t/a", "/run/t/b"} {
		if err := os.Mkdir(r.Path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = "/run/t/a/shop.ini", "/run/t/b/shop.ini"
	r.writeAs(second, agentIni, bob, bob)
	r.start()
	pid := r.reach("shop").PID
	told := 0
	kept := func(when string) {
		t.Helper()
		told++
		nettest.Eventually(t, patience, when+": that the name is taken is told", func() bool {
			log, _ := os.ReadFile(r.log)
			return strings.Count(string(log), first+`: the name \"shop\" is taken by `+second) == told
		})
		if s := r.reach("shop"); s.File != second || s.PID != pid {
			t.Errorf("%s: %s is pid %d, which was %d", when, s.File, s.PID, pid)
		}
	}
	r.writeAs(first, agentIni, alice, alice)
	kept("somebody comes")
	r.mustRun("upgrade")
	kept("an upgrade")
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	r.start()
	kept("a killed emperor")

	if err := os.Remove(r.Path(second)); err != nil {
		t.Fatal(err)
	}
	r.await("shop", "is alice's", func(s emperor.Status) bool { return s.State == emperor.Running && s.File == first })
}
