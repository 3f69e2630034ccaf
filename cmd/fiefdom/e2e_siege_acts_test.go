package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fiefdom/emperor"
)

// siegeActs are what an emperor is killed in. Each begins and ends with nothing but
// the survivors, and is over at once when the emperor is dead.
var siegeActs = map[string]func(*siege){
	"adopt":   (*siege).actAdopt,
	"begin":   (*siege).actBegin,
	"end":     (*siege).actEnd,
	"upgrade": (*siege).actUpgrade,
	"work":    (*siege).actWork,
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
		return len(now) == len(survivors)+len(residents)
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
	s.nothingLeft()
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
	s.until("all run", func() bool { return len(s.statuses()) == len(survivors)+len(residents) })
}

// The guests. Who is fickle may be stopped, or sleep.
var siegeGuests = map[string]string{
	"noisy": "[uwsgi]\ncommand = sh -c 'while echo here I am; do sleep 0.1; done'\nlogto = /run/t/log/noisy\ntouch-logrotate = /run/t/rotate\nnetwork = bridge:br0\nunshare = pid,fs\nlimit-pids = ",
	"crew":  "[uwsgi]\ncommand = AGENT\nattach-daemon = exec sleep 1012\ncron = -1 -1 -1 -1 -1 true\nenv = LOAD=",
	"hooked": `[uwsgi]
unshare = net
tuntap-device = uwsgi0 /run/fiefdom/emperor/fief0.sock
exec-as-root = ifconfig uwsgi0 10.9.7.7 netmask 255.255.0.0 up
exec-as-root = ping -c 1 -W 5 10.9.0.1
uid = 1501
command = AGENT
env = LOAD=`,
	"porter": "[uwsgi]\ncommand = AGENT\npublish = 8000:8000\npublish = 800",
	"door":   "[uwsgi]\ncommand = sleep 1013\nenv = LOAD=",
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
	return s.settled("door", nil)
}

// moves has a vassal publish, then publish by another port, and not start anew.
func (s *siege) moves() bool {
	s.guest("porter", "1:8000")
	if !s.settled("porter", nil) {
		return false
	}
	pid := s.get("porter").PID
	st := s.witness["porter"]
	st.Published = slices.Clone(st.Published)
	st.Published[1].Port, st.Published[1].Last = 8002, 8002
	s.witness["porter"] = st
	s.guest("porter", "2:8000")
	return s.settled("porter", func(st emperor.Status) bool {
		return st.PID == pid && len(st.Published) == 2 && st.Published[1].Port == 8002
	}) && s.until("the emperor says that it is done", func() bool { // a failpoint comes after the ports are in force
		return strings.Contains(s.allLogged(), `msg="published ports changed" vassal=porter`)
	})
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
		if !s.settled(name, nil) {
			return
		}
	}
	if !s.knock() {
		return
	}
	s.guest("noisy", "50")
	limit := func() bool {
		found, _ := filepath.Glob(filepath.Join(s.Legacy("pids"), "fiefdom-*", "noisy.*", "pids.max"))
		return slices.ContainsFunc(found, func(path string) bool {
			b, _ := os.ReadFile(path)
			pids, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			return pids > 50 && pids < 60 // and the reaper's threads
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
	if !s.settled("crew", func(st emperor.Status) bool { return st.PID != pid }) {
		return
	}
	s.touch("noisy", "hooked")
	_, _ = s.api.Do(s.t.Context(), "noisy", "stop")
	if !s.until("noisy is stopped", func() bool { return s.get("noisy").State == emperor.Stopped }) {
		return
	}
	_, _ = s.api.Do(s.t.Context(), "noisy", "start")
	if !s.settled("noisy", nil) {
		return
	}
	pid = s.get("hooked").PID
	_, _ = s.api.Do(s.t.Context(), "hooked", "restart")
	if !s.settled("hooked", func(st emperor.Status) bool { return st.PID != pid }) {
		return
	}
	if !s.moves() {
		return
	}
	s.touch("noisy", "crew", "hooked", "door", "porter")
	s.expel()
	s.until("all guests are gone", s.alone)
}

// alone says whether there is nobody but the survivors.
func (s *siege) alone() bool {
	list, err := s.api.List(s.t.Context())
	return err == nil && len(list) == len(survivors)+len(residents)
}
