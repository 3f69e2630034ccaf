package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// oomWatch hears of the kernel's changes to memory.events of the v2 tree: one
// inotify descriptor for all generations, since a user has few of them.
type oomWatch struct {
	mu      sync.Mutex
	watcher *fsnotify.Watcher
	heard   map[string]*Budget // by the file's path
	done    chan struct{}
}

// oomWatched is what tells of a generation's lack of memory.
type oomWatched struct {
	over  func() error
	ended chan struct{} // closed when nobody is told any more; nil: at once
}

func (o *oomWatched) close() error {
	if o == nil {
		return nil
	}
	err := o.over()
	if o.ended != nil {
		<-o.ended
	}
	return err
}

// watch begins to hear of lack of memory, once there is a controller that knows.
func (b *Budget) watch() (err error) {
	if b.oom != nil {
		return nil
	}
	switch dir := b.dirs["memory"]; {
	case dir != "":
		b.oom, err = b.watchLegacy(dir)
	case b.cgroup != "" && b.controllers.v2["memory"] && b.has("memory"):
		b.oom, err = b.controllers.oom.add(b)
	}
	if err != nil {
		return fmt.Errorf("watch for lack of memory: %w", err)
	}
	return nil
}

// count tells of processes that were killed since the last time.
func (b *Budget) count() bool {
	kills, err := b.readKills()
	if err != nil {
		return false
	}
	b.mu.Lock()
	more := kills - min(kills, b.kills)
	b.kills = max(kills, b.kills)
	b.mu.Unlock()
	if more > 0 && b.short != nil {
		b.short(more)
	}
	return more > 0
}

// Kills says how many processes were killed for memory so far.
func (b *Budget) Kills() uint64 {
	if b == nil {
		return 0
	}
	b.count()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kills
}

func (b *Budget) readKills() (uint64, error) {
	b.mu.Lock()
	dir := b.dirs["memory"]
	b.mu.Unlock()
	if dir != "" {
		return keyed(filepath.Join(dir, "memory.oom_control"), "oom_kill")
	}
	if b.cgroup == "" {
		return 0, errors.New("no memory controller")
	}
	return keyed(b.cgroup.file("memory.events"), "oom_kill")
}

// keyed reads the number of one line "KEY NUMBER" of a file.
func keyed(path, key string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if number, ok := strings.CutPrefix(line, key+" "); ok {
			return strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no line %s", path, key)
}

// settleTime is how long after the notice of v1 the kill may still come: the
// kernel tells first.
const (
	settleTime  = time.Second
	settlePause = 5 * time.Millisecond
)

// watchLegacy asks a v1 tree to tell by an eventfd.
func (b *Budget) watchLegacy(dir string) (*oomWatched, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	event := os.NewFile(uintptr(fd), "oom")
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cgroup.event_control"), fmt.Appendf(nil, "%d %d", fd, control.Fd()), 0)
		err = errors.Join(err, control.Close())
	}
	if err != nil {
		return nil, errors.Join(err, event.Close())
	}
	stop := make(chan struct{})
	o := &oomWatched{ended: make(chan struct{}), over: func() error { close(stop); return event.Close() }}
	go func() { // until close, which waits for it
		defer close(o.ended)
		for n := make([]byte, 8); ; {
			if _, err := event.Read(n); err != nil {
				return
			}
			for began := time.Now(); !b.count() && time.Since(began) < settleTime; {
				select {
				case <-stop:
					return
				case <-time.After(settlePause):
				}
			}
		}
	}()
	return o, nil
}

// add has a generation's memory.events watched.
func (w *oomWatch) add(b *Budget) (*oomWatched, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watcher == nil {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, err
		}
		w.watcher, w.heard, w.done = watcher, map[string]*Budget{}, make(chan struct{})
		go w.run(watcher) // until close, which waits for it
	}
	watcher, path := w.watcher, b.cgroup.file("memory.events")
	w.heard[path] = b
	if err := watcher.Add(path); err != nil {
		delete(w.heard, path)
		return nil, err
	}
	return &oomWatched{over: func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.heard, path)
		_ = watcher.Remove(path) // the cgroup may be gone, and the watch with it; so may the watcher
		return nil
	}}, nil
}

func (w *oomWatch) run(watcher *fsnotify.Watcher) {
	defer close(w.done)
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return
			}
			w.mu.Lock()
			b := w.heard[e.Name]
			w.mu.Unlock()
			if b != nil {
				b.count()
			}
		case _, ok := <-watcher.Errors: // an overflow: the next change tells, and the end does
			if !ok {
				return
			}
		}
	}
}

func (w *oomWatch) close() error {
	w.mu.Lock()
	watcher := w.watcher
	w.watcher = nil
	w.mu.Unlock()
	if watcher == nil {
		return nil
	}
	err := watcher.Close()
	<-w.done
	return err
}
