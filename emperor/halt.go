package emperor

import (
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
)

// haltOutputs stops the reading of what vassals write, at the end of a line, and
// has all that was read written, before this program ends in the middle of its
// work. The function that it returns goes on.
func (e *Emperor) haltOutputs() (resume func()) {
	var halted []*output
	for _, v := range e.vassals {
		if v.output != nil {
			halted = append(halted, v.output)
		}
		if v.crew == nil {
			continue
		}
		for _, p := range v.crew.processes {
			if p.output != nil {
				halted = append(halted, p.output)
			}
		}
	}
	for _, o := range halted {
		o.halt()
	}
	until := time.Now().Add(lastWords)
	for _, o := range halted {
		for _, q := range o.queues() {
			q.Flush(time.Until(until))
		}
	}
	return func() {
		for _, o := range halted {
			o.resume()
		}
	}
}

// halt stops the reading. The rest of a line that was begun is taken, as far as
// it has come.
func (o *output) halt() {
	_ = o.fifo.SetReadDeadline(time.Now()) // wakes read
	<-o.done
	raw, err := o.fifo.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		for o.midline() {
			if n, err := unix.Read(int(fd), b[:]); n <= 0 || err != nil {
				return
			}
			o.take(b[:])
		}
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 {
		o.print(o.partial)
		o.partial = nil
	}
}

func (o *output) midline() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.partial) > 0
}

// resume reads on.
func (o *output) resume() {
	_ = o.fifo.SetReadDeadline(time.Time{})
	o.done = make(chan struct{})
	go o.read()
}

// queues are those before the logs.
func (o *output) queues() (all []*logfile.Queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, q := range []*logfile.Queue{o.queue, o.logs.file, o.logs.syslog} {
		if q != nil {
			all = append(all, q)
		}
	}
	return all
}
