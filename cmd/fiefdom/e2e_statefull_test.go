package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const stateDir = "/var/lib/fiefdom/emperor"

// A state directory that takes nothing any more costs no vassal anything, also
// none that comes; what is in it can always be read; the log says what is wrong;
// and what could not be written is, as soon as it can be. // T23
func TestSoakStateCannotBeWritten(t *testing.T) {
	for _, c := range []struct{ name, harm, mend, why string }{
		{"full", "head -c 1m /dev/zero >" + stateDir + "/filler", "mount -o remount,size=1m " + stateDir, "no space left on device"},
		{"read-only", "mount -o remount,ro " + stateDir, "mount -o remount,rw,size=1m " + stateDir, "read-only file system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
			r.Run(t, "sh", "-c", "mkdir -p "+stateDir+" && mount -t tmpfs -o size=64k,mode=700 state "+stateDir)
			for name, text := range survivors {
				r.drop(name, text)
			}
			r.start()
			before := r.all()
			old := r.leases()
			r.die()                             // who writes to a file system keeps it from becoming read-only
			_, _ = r.Try(t, "sh", "-c", c.harm) // to fill it fails
			r.start()
			r.same(before)
			count := r.churnNames(scaled(2, 50))
			if now := r.leases(); fmt.Sprint(now) != fmt.Sprint(old) {
				t.Errorf("the leases became %v, were %v", now, old)
			}
			r.drop("comes", agentIni)
			comes := r.reach("comes")
			r.same(before)
			r.die()
			r.start() // the next one cannot write either
			r.same(before)
			r.logged("vassal adopted", 3+4)
			r.quiet()
			r.same(map[string]emperor.Status{"comes": comes})
			if n := strings.Count(r.allLogged(), "leases are not saved"); n == 0 || n > 2 || !strings.Contains(r.allLogged(), c.why) {
				t.Errorf("that leases are not saved is said %d times", n)
			}
			r.Run(t, "sh", "-c", c.mend)
			nettest.Eventually(t, recovery*time.Duration(slowness()), "its address is written", func() bool {
				return r.leases()["comes"] == comes.Addresses[0]
			})
			r.logged("leases are saved again", 1)
			lost := r.awaitEvent("lost") // and so is that events were lost
			t.Logf("%d vassals came and went; %v", count, lost.Fields)
			r.same(before)
			r.stop(syscall.SIGTERM)
			r.start()
			if s := r.reach("comes"); s.Addresses[0] != comes.Addresses[0] || s.UID != comes.UID {
				t.Errorf("with the next emperor it has uid %d and %v, had %d and %v", s.UID, s.Addresses, comes.UID, comes.Addresses)
			}
			r.stop(syscall.SIGTERM)
		})
	}
}

// leases are the addresses on record, which anybody can read at any time.
func (r *realm) leases() map[string]netip.Addr {
	r.t.Helper()
	var file struct {
		Addresses map[string]map[string]netip.Addr `json:"addresses"`
	}
	if err := json.Unmarshal([]byte(r.read(stateDir+"/leases.json")), &file); err != nil {
		r.t.Errorf("leases.json: %v", err)
	}
	return file.Addresses["10.9.0.0/16"]
}

// churnNames lets vassals of names that were never there come and go, twenty
// at a time, and says how many there were.
func (r *realm) churnNames(rounds int) (count int) {
	r.t.Helper()
	const each = 20
	for range rounds {
		var names []string
		for range each {
			count++
			names = append(names, fmt.Sprintf("passer%d", count))
			r.drop(names[len(names)-1], "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n")
		}
		for _, name := range names {
			r.awaitState(name, emperor.Running)
			r.leases()
		}
		for _, name := range names {
			if err := os.Remove(r.Path(iniPath(name))); err != nil {
				r.t.Fatal(err)
			}
		}
		for _, name := range names {
			r.await(name, "is gone", func(s emperor.Status) bool { return s.Name == "" })
		}
	}
	return count
}

// quiet waits until the emperor has read every ini again: what he does not take
// for what it was has another generation by then.
func (r *realm) quiet() {
	r.t.Helper()
	r.drop("last", agentIni)
	r.reach("last")
	r.remove("last")
	r.await("last", "is gone", func(s emperor.Status) bool { return s.Name == "" })
}
