package emperor

import "time"

// follower is somebody who reads a vassal's output as it comes.
type follower struct{ from int64 } // the position that he has not been told of

func (o *output) follow() *follower {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.followers == nil {
		o.followers = map[*follower]struct{}{}
	}
	f := &follower{}
	o.followers[f] = struct{}{}
	return f
}

func (o *output) told(f *follower, from int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.from = from
}

func (o *output) leave(f *follower) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.followers, f)
}

// toldAll says whether all followers have all whole lines.
func (o *output) toldAll() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for f := range o.followers {
		if lines, _ := o.history.since(f.from).lines(true); len(lines) > 0 {
			return false
		}
	}
	return true
}

// awaitFollowers waits until all who follow outputs that are halted have what was
// read of them, since the next emperor does not; not for one who takes nothing.
func awaitFollowers(halted []*output, until time.Time) {
	for _, o := range halted {
		for !o.toldAll() && time.Now().Before(until) {
			time.Sleep(time.Millisecond)
		}
	}
}
