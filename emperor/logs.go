package emperor

import (
	"os"
	"slices"
	"sync"
	"time"

	"fiefdom/internal/logfile"
	"fiefdom/vassal"
)

// logs are where an output goes beside memory and the emperor's log.
type logs struct {
	path   string // of logto
	opened *logfile.File
	file   *logfile.Queue // before opened; nil: there is none
	syslog *logfile.Queue // nil: no
	before logfile.Lost   // by queues that are gone
	why    string
	stop   chan struct{} // ends the watch over touch-logreopen and touch-logrotate; nil: there is none
}

// folder is where the file of logto is; nil: there is none.
func (l *logs) folder() *os.File {
	if l.opened == nil {
		return nil
	}
	return l.opened.Folder()
}

// OutputStatus is what became of a vassal's output.
type OutputStatus struct {
	Bytes  uint64       `json:"bytes"`            // ever written by the vassal under this emperor
	File   string       `json:"file,omitempty"`   // that logto names
	Syslog bool         `json:"syslog,omitempty"` // it goes to syslog
	Lost   logfile.Lost `json:"lost"`             // could not be written to a log
	Reason string       `json:"reason,omitempty"` // of the last that was lost
}

// setLogs sends what comes from now on where a start's plan says: f is the file
// of its logto, nil without one, and the output's from now on.
func (o *output) setLogs(e *Emperor, f *logfile.File, plan *vassal.Plan) {
	l := &plan.Logging
	if f != nil {
		f.Trouble = seldom(func(err error) { e.Log.Warn("log", "vassal", o.name, "file", plan.LogTo, "err", err) })
		f.Tidy()
	}
	o.mu.Lock()
	old := o.logs
	now := logs{path: plan.LogTo, opened: f}
	switch {
	case f == nil:
	case old.file == nil:
		now.file = logfile.NewQueue(f, logfile.Notice)
	default:
		now.file, old.file = old.file, nil
		now.file.SetTo(f, func() { _ = old.opened.Close() })
	}
	switch {
	case !l.Syslog || e.Syslog == nil:
	case old.syslog == nil:
		now.syslog = logfile.NewQueue(e.Syslog(o.name), logfile.Notice)
	default:
		now.syslog, old.syslog = old.syslog, nil
	}
	now.before, now.why = old.lost()
	if f != nil && len(l.TouchReopen)+len(l.TouchRotate) > 0 {
		now.stop = make(chan struct{})
		go watchLog(now.file, f, plan, now.stop) // until stop is closed
	}
	o.logs = now
	o.mu.Unlock()
	old.close()
}

// seldom passes on one error a minute: a flood must not become another.
func seldom(tell func(error)) func(error) {
	var mu sync.Mutex
	var last time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) > time.Minute {
			last = now
			tell(err)
		}
	}
}

// lost is what these logs and those before them have lost, and why.
func (l logs) lost(more ...*logfile.Queue) (logfile.Lost, string) {
	sum, why := l.before, l.why
	for _, q := range append(more, l.file, l.syslog) {
		if q == nil {
			continue
		}
		if lost, reason := q.Lost(); lost.Bytes > 0 {
			sum.Bytes += lost.Bytes
			sum.Lines += lost.Lines
			why = reason
		}
	}
	return sum, why
}

// close ends the queues that are left.
func (l logs) close() {
	if l.stop != nil {
		close(l.stop)
	}
	if l.syslog != nil {
		_ = l.syslog.Close(lastWords)
	}
	if l.file != nil && l.file.Close(lastWords) == nil {
		_ = l.opened.Close() // else its goroutine still has it, until the disk answers
	}
}

// status tells what became of the output.
func (o *output) status() *OutputStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &OutputStatus{Bytes: uint64(o.history.total), File: o.logs.path, Syslog: o.logs.syslog != nil}
	s.Lost, s.Reason = o.logs.lost(o.queue)
	return s
}

// reopen opens the file of logto anew.
func (o *output) reopen() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.logs.opened != nil {
		o.logs.opened.Reopen()
		o.logs.file.Poke()
	}
}

// endOutput ends an output, if there is one. Logs that take their time are not
// the loop's to wait for.
func (e *Emperor) endOutput(o *output, name, process string) {
	if o == nil {
		return
	}
	if err := o.shut(); err != nil {
		e.Log.Warn("close output", "vassal", name, "process", process, "err", err)
	}
	e.jobs.Go(o.finish)
}

// watchLog looks at the files of touch-logreopen and touch-logrotate, with the
// rights by which the log was opened, until stop is closed.
func watchLog(q *logfile.Queue, f *logfile.File, plan *vassal.Plan, stop chan struct{}) {
	as := func(do func() error) error { return do() }
	if plan.LogUID > 0 {
		as = plan.LogRights()
	}
	look := time.NewTicker(touchInterval)
	defer look.Stop()
	WatchTouches(&plan.Logging, as, look.C, stop, func(rotate bool) {
		if rotate {
			f.Rotate()
		} else {
			f.Reopen()
		}
		q.Poke()
	})
}

// WatchTouches looks at the files of touch-logreopen and touch-logrotate at
// each tick until stop is closed, and tells what their owner wants.
func WatchTouches(l *vassal.Logging, as func(func() error) error, tick <-chan time.Time, stop <-chan struct{}, tell func(rotate bool)) {
	look := func() (reopen, rotate []time.Time) {
		_ = as(func() error {
			reopen, rotate = touchedAt(l.TouchReopen), touchedAt(l.TouchRotate)
			return nil
		})
		return reopen, rotate
	}
	reopen, rotate := look()
	for {
		select {
		case <-stop:
			return
		case <-tick:
		}
		reopened, rotated := look()
		if !slices.Equal(reopened, reopen) {
			tell(false)
		}
		if !slices.Equal(rotated, rotate) {
			tell(true)
		}
		reopen, rotate = reopened, rotated
	}
}

func touchedAt(paths []string) []time.Time {
	var at []time.Time
	for _, path := range paths {
		var when time.Time // of a file that is not there
		if st, err := os.Stat(path); err == nil {
			when = st.ModTime()
		}
		at = append(at, when)
	}
	return at
}
