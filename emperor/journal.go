package emperor

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of the journal.
const (
	journalKept  = 1 << 20     // bytes of the newest events in memory, for the file's writer and for watchers
	journalFlush = time.Second // for the last events to be written
)

// Journal keeps what happened: the newest events in memory, many more in a file
// of bounded size. Whoever adds an event waits for nobody: the file's writer and
// the watchers read the memory at their own pace, and lose what they are too late for.
type Journal struct {
	log  *slog.Logger // for its own troubles
	file journalFile

	mu     sync.Mutex
	kept   []entry // consecutive ids, the newest last
	bytes  int     // of kept
	last   uint64  // id ever given
	grown  chan struct{}
	owners map[string]uint32 // of vassals' inis; who is not here is root
	counts map[string]uint64 // events by kind
	lost   uint64            // events that never got into the file

	closing chan struct{}
	done    chan struct{}
}

// entry is an event in memory.
type entry struct {
	stamp
	line []byte
}

// stamp is what of an event decides who gets it.
type stamp struct {
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`
	Vassal string    `json:"vassal"`
	Owner  uint32    `json:"owner"`
}

// OpenJournal goes on with the instance's journal. It never fails: events that
// cannot be written are counted, and those that come once they can be are written.
func (i *Instance) OpenJournal(log *slog.Logger) *Journal {
	j := &Journal{
		log: log, file: journalFile{path: journalPath(i.State), most: journalSize},
		owners: map[string]uint32{}, counts: map[string]uint64{}, closing: make(chan struct{}), done: make(chan struct{}),
	}
	j.last = j.file.lastID()
	go j.write(j.last)
	return j
}

// Close writes what is left, for a moment.
func (j *Journal) Close() {
	close(j.closing)
	select {
	case <-j.done:
	case <-time.After(journalFlush): // the disk hangs
	}
}

// own notes whose a vassal is from now on.
func (j *Journal) own(vassal string, uid uint32) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if uid == 0 {
		delete(j.owners, vassal)
	} else {
		j.owners[vassal] = uid
	}
}

// add takes an event; its id and owner are the journal's to say.
func (j *Journal) add(ev Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	j.counts[ev.Kind]++
	ev.ID, ev.Owner = j.last, j.owners[ev.Vassal]
	en := entry{stamp{ev.ID, ev.Time, ev.Vassal, ev.Owner}, ev.encode()}
	j.kept, j.bytes = append(j.kept, en), j.bytes+len(en.line)
	for j.bytes > journalKept {
		j.bytes -= len(j.kept[0].line)
		j.kept[0] = entry{}
		j.kept = j.kept[1:]
	}
	if j.grown != nil {
		close(j.grown)
		j.grown = nil
	}
}

// journalBatch is how many events somebody takes at a time.
const journalBatch = 64

// after returns the next events in memory after an id, how many between them
// and the id have left it already, and, if there are none at all, a channel
// that is closed with the next one.
func (j *Journal) after(id uint64) (batch []entry, missed uint64, grown <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := j.last + 1 - uint64(len(j.kept))
	if id+1 < first {
		return nil, first - 1 - id, nil
	}
	if rest := j.kept[id+1-first:]; len(rest) > 0 {
		return append(batch, rest[:min(len(rest), journalBatch)]...), 0, nil
	}
	if j.grown == nil {
		j.grown = make(chan struct{})
	}
	return nil, 0, j.grown
}

// newest is the last event's id.
func (j *Journal) newest() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Latest are at most n of the newest events that are in memory, of one vassal or,
// with "", of all; the newest first.
func (j *Journal) Latest(vassal string, n int) []Event {
	var lines [][]byte
	j.mu.Lock()
	for _, en := range slices.Backward(j.kept) {
		if len(lines) == n {
			break
		}
		if vassal == "" || en.Vassal == vassal {
			lines = append(lines, en.line)
		}
	}
	j.mu.Unlock()
	all := make([]Event, 0, len(lines))
	for _, line := range lines {
		var ev Event
		if json.Unmarshal(line, &ev) == nil { // it was made by encode
			all = append(all, ev)
		}
	}
	return all
}

// Counts are this emperor's events by kind, and how many never got into the file.
func (j *Journal) Counts() (byKind map[string]uint64, lost uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.counts), j.lost
}

// write brings the events after an id to the file, until the journal closes.
func (j *Journal) write(id uint64) {
	defer close(j.done)
	defer j.file.close()
	unsaid := uint64(0) // lost since the file was last fine
	lose := func(n uint64, why string) {
		if unsaid == 0 {
			j.log.Warn("events cannot be written", "file", j.file.path, "reason", why)
		}
		unsaid += n
		j.mu.Lock()
		defer j.mu.Unlock()
		j.lost += n
	}
	for {
		batch, missed, grown := j.after(id)
		if missed > 0 {
			lose(missed, "the disk is too slow")
			id += missed
			continue
		}
		for _, en := range batch {
			id = en.ID
			if err := j.file.append(en.line); err != nil {
				lose(1, err.Error())
			} else if unsaid > 0 {
				n := unsaid
				unsaid = 0
				j.add(Event{Time: time.Now(), Kind: KindLost, Message: "events could not be written", Fields: map[string]any{"events": n}})
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-j.closing:
			if j.newest() == id {
				return
			}
		}
	}
}
