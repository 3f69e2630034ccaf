package emperor

import (
	"time"
)

// ProcessStatus is a process beside a vassal's command, as "fiefdom ps --json"
// shows it.
type ProcessStatus struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`  // daemon or cron
	State    State     `json:"state"` // a job between its runs is sleeping
	PID      int       `json:"pid"`   // of the newest run; 0: none runs
	UID      int       `json:"uid"`
	Restarts int       `json:"restarts"`       // of a daemon
	Runs     int       `json:"runs,omitempty"` // of a job, so far
	Since    time.Time `json:"since"`          // of the state
	Error    string    `json:"error"`          // why it is down, or how the last run of a job failed
	Command  string    `json:"command"`
}

// describe adds a crew to the status of its vassal. The vassal is as its
// command is, which is one of the crew.
func (v *member) describe(s *Status) {
	c := v.crew
	if c == nil {
		return
	}
	s.PID, s.Loyal = 0, false
	for _, p := range c.processes {
		if p.spec != nil {
			s.Processes = append(s.Processes, p.status(v.uid))
			continue
		}
		s.PID, s.Restarts = p.pid(), s.Restarts+max(p.ran-1, 0)
		if n := p.current(); n != nil && n.gen != nil {
			s.Loyal = time.Since(n.gen.Started) >= p.backoff.young
		}
		if v.state == Running && p.state != Stopped {
			s.State, s.Since = p.state, p.since
		}
		if s.Error == "" && p.state == Backoff {
			s.Error = p.err
		}
	}
	for _, p := range s.Processes {
		if s.Error == "" && p.State == Backoff {
			s.Error = p.Name + ": " + p.Error
		}
	}
}

func (p *process) status(uid int) ProcessStatus {
	s := ProcessStatus{
		Name: p.name(), Kind: "daemon", State: p.state, PID: p.pid(), UID: uid, Since: p.since, Error: p.err, Command: p.spec.Command,
		Restarts: max(p.ran-1, 0),
	}
	if p.cron() != nil {
		s.Kind, s.Runs, s.Restarts = "cron", p.ran, 0
	}
	if p.spec.UID != nil {
		s.UID = p.spec.UID.ID
	}
	return s
}

// current is the newest run; nil: there is none.
func (p *process) current() *run {
	if len(p.runs) == 0 {
		return nil
	}
	return p.runs[len(p.runs)-1]
}

func (p *process) pid() int {
	if n := p.current(); n != nil {
		return n.pid
	}
	return 0
}
