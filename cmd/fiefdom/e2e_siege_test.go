package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
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
	hosts   string // the hosts file as it was before
}

// residents are survivors that only a siege has.
var residents = map[string]string{
	"logs":    "[uwsgi]\ncommand = AGENT\nlogto = /run/t/log/logs\nlimit-pids = 40\npublish = 8090:8000\npublish = 8090:8000/udp\n",
	"bridged": "[uwsgi]\ncommand = AGENT\nnetwork = bridge:br0 10.100.0.1/24 fd10::1/64\n",
	"both":    "[uwsgi]\ncommand = AGENT\nnetwork = fief0\nnetwork = bridge:br0\npublish = 8091:8000\npublish = 127.0.0.1:8092:8000/udp\n",
}

// besiege is a world with an emperor, and vassals that are to survive him.
func besiege(t *testing.T, program string) *siege {
	t.Helper()
	s := &siege{realm: layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-extension = .socket\n")}
	s.program = program
	s.Run(t, "mkdir", "-m", "777", "/run/doors", "/run/t/log")
	for name, text := range survivors {
		s.drop(name, strings.ReplaceAll(text, "cron = ", "#")) // a job comes and goes by itself
	}
	for name, text := range residents {
		s.drop(name, text)
	}
	s.before, s.hosts = s.Snapshot(t), s.read("/etc/hosts")
	s.lasting = "/etc/hosts"
	s.launch()
	if why := s.try(func() {
		s.must("names are kept in /etc/hosts", func() bool { return s.api.Hosts(t.Context(), new(true), new(hostsTold)) == nil })
	}); why != "" {
		t.Fatalf("%s\n%s", why, s.lastLogged())
	}
	if why := s.try(s.settle); why != "" {
		t.Fatalf("%s\n%s", why, s.lastLogged())
	}
	return s
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
		panic(gaveUp(fmt.Sprintf("the emperor ended by itself (%v) before %s", s.cmd.ProcessState, what)))
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
	if s.counts != nil {
		for point := range strings.FieldsSeq(s.read(passedFile)) {
			s.counts[point]++
		}
		_ = os.Remove(s.Path(passedFile))
	}
	hit := s.arms != "" && os.Remove(s.Path(armedFile)) != nil
	s.arms = ""
	return hit
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
		if killed = s.disarm(); killed {
			<-s.dead
			s.launch()
		} else if s.died() {
			panic(gaveUp(fmt.Sprintf("the emperor ended by itself (%v)", s.cmd.ProcessState)))
		}
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

// settled waits until all of a vassal runs, as wanted, and notes how: the act does
// not touch it any more.
func (s *siege) settled(name string, want func(emperor.Status) bool) bool {
	var st emperor.Status
	ok := s.until(name+" runs", func() bool {
		st = s.get(name)
		return whole(st) && (want == nil || want(st))
	})
	if ok {
		s.witness[name] = st
	}
	return ok
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
	for name, before := range s.witness {
		want := fmt.Sprint(before.Published)
		s.must(name+" publishes what it did: "+want, func() bool { return fmt.Sprint(s.get(name).Published) == want })
	}
	s.expel()
	s.must("the guests are gone", s.alone)
	var diff string
	if s.still == "" {
		s.must("it is quiet", func() bool { // nobody has yet to become a daemon
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
		return
	}
	if _, err := s.Try(s.t, "fiefdom", "hosts", "--remove"); err != nil || s.read("/etc/hosts") != s.hosts {
		s.t.Errorf("hosts --remove: %v, and /etc/hosts is\n%s", err, s.read("/etc/hosts"))
	}
}

// stopAll ends the emperor, and with him all.
func (s *siege) stopAll() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if s.until("the emperor ends", func() bool { return false }) || s.cmd.ProcessState.ExitCode() != exitOK {
		panic(gaveUp(fmt.Sprintf("the emperor's exit code is %d", s.cmd.ProcessState.ExitCode())))
	}
	s.nothingLeft()
}
