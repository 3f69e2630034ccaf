package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// The files of the program with failpoints, see testdata/failpoint.
const (
	armedFile  = realmDir + "/failpoint"
	passedFile = realmDir + "/failpoints"
)

// siege is a realm whose emperor is killed again and again. Its survivors run all
// the time; guests come and go in acts.
type siege struct {
	*realm
	dead    chan struct{}  // closed when the emperor has ended
	arms    string         // what an act arms
	counts  map[string]int // who comes by where while an act is armed; nil: nobody counts
	witness map[string]emperor.Status
	still   string // the world as it is when nothing happens
}

// siegeActs are what an emperor is killed in. Each begins and ends with nothing but
// the survivors, and is over at once when the emperor is dead.
var siegeActs = map[string]func(*siege){
	"adopt":   (*siege).actAdopt,
	"begin":   (*siege).actBegin,
	"end":     (*siege).actEnd,
	"upgrade": (*siege).actUpgrade,
	"work":    (*siege).actWork,
}

// gaveUp is what a siege panics with: it is told by strike.
type gaveUp string

func (s *siege) try(do func()) (why string) {
	defer func() {
		if r := recover(); r != nil {
			said, ok := r.(gaveUp)
			if !ok {
				panic(r)
			}
			why = string(said)
		}
	}()
	do()
	return ""
}

func (s *siege) launch() {
	s.realm.launch()
	s.dead = make(chan struct{})
	go func() { // ends with the emperor, at the latest with the world
		_ = s.cmd.Wait()
		close(s.dead)
	}()
}

func (s *siege) died() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// until waits for something; it is false when the emperor died meanwhile.
func (s *siege) until(what string, holds func() bool) bool {
	for deadline := time.Now().Add(patience); !s.died(); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			panic(gaveUp("not within " + patience.String() + ": " + what))
		}
	}
	return false
}

// must is until for an emperor who is not to die.
func (s *siege) must(what string, holds func() bool) {
	if !s.until(what, holds) {
		panic(gaveUp("the emperor ended by itself before " + what))
	}
}

func (s *siege) get(name string) emperor.Status {
	st, _ := s.api.Get(s.t.Context(), name)
	return st
}

func (s *siege) runs(name string) bool { return whole(s.get(name)) }

// whole says whether all of a vassal runs.
func whole(st emperor.Status) bool {
	return st.State == emperor.Running && st.PID != 0 && len(st.Addresses) > 0 &&
		!slices.ContainsFunc(st.Processes, func(p emperor.ProcessStatus) bool { return p.Kind == "daemon" && p.PID == 0 })
}

func (s *siege) arm() {
	if s.arms != "" {
		s.write(armedFile, s.arms)
	}
	if s.counts != nil {
		s.write(passedFile, "")
	}
}

// disarm says whether the emperor came by where he was to be killed.
func (s *siege) disarm() bool {
	for point := range strings.FieldsSeq(s.read(passedFile)) {
		s.counts[point]++
	}
	_ = os.Remove(s.Path(passedFile))
	return os.Remove(s.Path(armedFile)) != nil && s.arms != ""
}

// strike has the emperor killed at a point, and looks what the next one makes of
// it. It says what is wrong then.
func (s *siege) strike(k strike) (killed bool, why string) {
	why = s.try(func() {
		s.arms = ""
		if k.point != "" {
			s.arms = fmt.Sprintf("%s %d", k.point, k.nth)
		}
		s.witness = s.statuses()
		siegeActs[k.act](s)
		if s.died() {
			if killed = s.disarm(); !killed {
				panic(gaveUp("the emperor ended by itself"))
			}
			s.launch()
		}
		s.disarm()
		s.settle()
	})
	return killed, why
}

// statuses are all vassals that run.
func (s *siege) statuses() map[string]emperor.Status {
	all := map[string]emperor.Status{}
	list, _ := s.api.List(s.t.Context())
	for _, st := range list {
		if st.State == emperor.Running {
			all[st.Name] = st
		}
	}
	return all
}

// settled notes who runs, and is not touched any more by the act.
func (s *siege) settled(names ...string) {
	for _, name := range names {
		s.witness[name] = s.get(name)
	}
}

// touch says that a vassal is not as it was from now on.
func (s *siege) touch(names ...string) {
	for _, name := range names {
		delete(s.witness, name)
	}
}

// settle looks what an emperor has made of what he found: who ran is the same,
// all inis are obeyed, and when the guests are gone the world is as it was.
func (s *siege) settle() {
	s.must("the emperor answers", func() bool { _, err := s.api.List(s.t.Context()); return err == nil })
	inis, err := filepath.Glob(s.Path(iniPath("*")))
	if err != nil {
		s.t.Error(err)
	}
	for _, path := range inis {
		name := strings.TrimSuffix(filepath.Base(path), ".ini")
		s.must(name+" is as its ini says", func() bool {
			return s.runs(name) || slices.Contains([]emperor.State{emperor.Sleeping, emperor.Stopped}, s.get(name).State) && slices.Contains(fickle, name)
		})
	}
	for name, before := range s.witness {
		if diff := unlike(before, s.get(name)); diff != "" {
			panic(gaveUp(name + " is not what it was: " + diff))
		}
	}
	s.expel()
	s.must("the guests are gone", s.alone)
	var diff string
	if s.still == "" {
		s.must("it is quiet", func() bool { // no job runs, and no shell has yet to become a daemon
			now := s.stillness()
			if !strings.Contains(now, "/bin/sh -c") && s.stillness() == now {
				s.still = now
			}
			return s.still != ""
		})
	}
	why := s.try(func() {
		s.must("nothing is left", func() bool {
			diff = nettest.Diff(s.still, s.stillness())
			return diff == ""
		})
	})
	if why != "" {
		panic(gaveUp(why + "\n" + diff))
	}
}

// vaultFiles is what is open in the vault, without what numbers it.
func (s *siege) vaultFiles() string {
	var pid int
	_, _ = fmt.Sscan(s.read("/run/fiefdom/emperor/vault"), &pid)
	dir := s.Path(fmt.Sprintf("/proc/%d/fd", pid))
	files, _ := os.ReadDir(dir)
	var all []string
	for _, f := range files {
		what, _ := os.Readlink(filepath.Join(dir, f.Name()))
		all = append(all, "vault's "+strings.TrimRight(what, "0123456789[]"))
	}
	return strings.Join(all, "\n") + "\n"
}

// launches are the numbers of generations and runs in the names of cgroups.
var launches = regexp.MustCompile(`\.\d+(/|$)`)

// stillness is a snapshot without what differs from one emperor, or generation,
// to the next.
func (s *siege) stillness() string {
	var lines []string
	for line := range strings.Lines(s.Snapshot(s.t) + s.vaultFiles()) {
		if strings.Contains(line, " fe80::") {
			continue // the kernel's, at random
		}
		kind, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "process":
			_, what, _ = strings.Cut(what, " ")
			if strings.HasSuffix(what, " run "+realmDir+"/emperor.ini") {
				continue
			}
			if program, _, ok := strings.Cut(what, " router "); ok {
				what = program + " router"
			}
		case "cgroup":
			what = launches.ReplaceAllString(what, "$1")
		case "file":
			if strings.HasPrefix(what, "/var/lib/fiefdom") || strings.HasPrefix(what, realmDir) {
				continue
			}
			what = strings.Join(strings.Fields(what)[:2], " ") // not its size
		}
		lines = append(lines, kind+" "+what)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// lastLogged is the end of the log.
func (s *siege) lastLogged() string {
	lines := strings.Split(strings.TrimSpace(s.allLogged()), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// leave ends the siege. What it leaves is a failure, if it was none before.
func (s *siege) leave() {
	if s.died() {
		return
	}
	if why := s.try(s.stopAll); why != "" {
		s.t.Error(why)
	}
}

// stopAll ends the emperor, and with him all.
func (s *siege) stopAll() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if s.until("the emperor ends", func() bool { return false }) || s.cmd.ProcessState.ExitCode() != exitOK {
		panic(gaveUp(fmt.Sprintf("the emperor's exit code is %d", s.cmd.ProcessState.ExitCode())))
	}
	if left := s.leftOver(); left != "" {
		panic(gaveUp("left over:\n" + left))
	}
}

func (s *siege) actAdopt() {
	_ = s.cmd.Process.Kill()
	<-s.dead
	s.arm()
	s.launch()
	s.begun()
}

func (s *siege) actBegin() {
	s.stopAll()
	_ = os.Remove(s.Path("/var/lib/fiefdom/emperor/leases.json")) // it is written again
	s.arm()
	clear(s.witness)
	s.launch()
	s.until("all run", func() bool {
		now := s.statuses()
		for name, st := range now {
			if whole(st) {
				s.witness[name] = st
			}
		}
		return len(now) == len(survivors)+1
	})
}

func (s *siege) actEnd() {
	s.guest("door", "")
	if !s.knock() {
		return
	}
	clear(s.witness)
	s.arm()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	s.until("the emperor ends", func() bool { return false })
	if s.cmd.ProcessState.ExitCode() != exitOK {
		return // killed
	}
	s.disarm()
	if left := s.leftOver(); left != "" {
		panic(gaveUp("left over:\n" + left))
	}
	s.launch()
}

func (s *siege) actUpgrade() {
	s.arm()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with ctx at the latest
		_, _, err := s.api.Upgrade(ctx)
		done <- err
	}()
	select {
	case <-s.dead:
	case err := <-done:
		if err != nil && !s.until("the emperor is dead", func() bool { return false }) {
			return
		}
		s.begun()
	}
}

// begun waits until all run under an emperor who has adopted them.
func (s *siege) begun() {
	s.until("all run", func() bool { return len(s.statuses()) == len(survivors)+1 })
}

// The guests. Who is fickle may be stopped, or sleep.
var siegeGuests = map[string]string{
	"noisy": "[uwsgi]\ncommand = sh -c 'while echo here I am; do sleep 0.1; done'\nlogto = /run/t/log/noisy\ntouch-logrotate = /run/t/rotate\nunshare = pid,fs\nlimit-pids = ",
	"crew":  "[uwsgi]\ncommand = AGENT\nattach-daemon = exec sleep 1012\nenv = LOAD=",
	"hooked": `[uwsgi]
unshare = net
tuntap-device = uwsgi0 /run/fiefdom/emperor/fief0.sock
exec-as-root = ifconfig uwsgi0 10.9.7.7 netmask 255.255.0.0 up
exec-as-root = ping -c 1 -W 5 10.9.0.1
uid = 1501
command = AGENT
env = LOAD=`,
	"door": "[uwsgi]\ncommand = sleep 1013\nenv = LOAD=",
}

var fickle = []string{"noisy", "door"}

func (s *siege) guest(name, end string) {
	if name == "door" {
		s.write(iniPath(name)+".socket", "/run/doors/door\n")
	}
	s.drop(name, siegeGuests[name]+end+"\n")
}

// expel removes all guests.
func (s *siege) expel() {
	for name := range siegeGuests {
		_ = os.Remove(s.Path(iniPath(name)))
	}
	_ = os.Remove(s.Path(iniPath("door") + ".socket"))
}

// knock wakes the vassal behind the door.
func (s *siege) knock() bool {
	if !s.until("the door is open", func() bool {
		c, err := net.Dial("unix", s.Path("/run/doors/door"))
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		return false
	}
	if !s.until("the vassal behind the door runs", func() bool { return s.runs("door") }) {
		return false
	}
	s.settled("door")
	return true
}

// order has the emperor do something for a vassal, and waits for it.
func (s *siege) order(name, word string, then func(emperor.Status) bool) bool {
	s.touch(name)
	_, _ = s.api.Do(s.t.Context(), name, word)
	return s.until(name+" after "+word, func() bool { return then(s.get(name)) })
}

// actWork is a day's work: vassals come, are woken, limited, rotated, visited,
// changed, stopped, started, and go.
func (s *siege) actWork() {
	s.arm()
	s.guest("noisy", "40")
	s.guest("crew", "1")
	s.guest("hooked", "1")
	s.guest("door", "1")
	for _, name := range []string{"noisy", "crew", "hooked"} {
		if !s.until(name+" runs", func() bool { return s.runs(name) }) {
			return
		}
		s.settled(name)
	}
	if !s.knock() {
		return
	}
	s.guest("noisy", "50")
	limit := func() bool {
		found, _ := filepath.Glob(filepath.Join(s.Legacy("pids"), "fiefdom-*", "noisy.*", "pids.max"))
		return slices.ContainsFunc(found, func(path string) bool {
			b, _ := os.ReadFile(path)
			return strings.TrimSpace(string(b)) == "50"
		})
	}
	if !s.until("the limit is changed", limit) {
		return
	}
	s.write("/run/t/rotate", "")
	_ = os.Chtimes(s.Path("/run/t/rotate"), time.Now(), time.Now())
	if !s.until("the log is rotated", func() bool {
		found, _ := filepath.Glob(s.Path("/run/t/log/noisy.*"))
		for _, path := range found {
			_ = os.Remove(path)
		}
		return len(found) > 0
	}) {
		return
	}
	_, _ = s.Try(s.t, "fiefdom", "exec", "noisy", "--", "true")
	pid := s.get("crew").PID
	s.touch("crew")
	s.guest("crew", "2")
	if !s.until("the crew is a new one", func() bool { return s.runs("crew") && s.get("crew").PID != pid }) {
		return
	}
	s.settled("crew")
	if !s.order("noisy", "stop", func(st emperor.Status) bool { return st.State == emperor.Stopped }) ||
		!s.order("noisy", "start", func(st emperor.Status) bool { return st.State == emperor.Running }) {
		return
	}
	s.settled("noisy")
	pid = s.get("hooked").PID
	if !s.order("hooked", "restart", func(st emperor.Status) bool { return st.PID != pid && s.runs("hooked") }) {
		return
	}
	s.touch("noisy", "crew", "hooked", "door")
	s.expel()
	s.until("all guests are gone", s.alone)
}

// alone says whether there is nobody but the survivors.
func (s *siege) alone() bool {
	list, err := s.api.List(s.t.Context())
	return err == nil && len(list) == len(survivors)+1
}
