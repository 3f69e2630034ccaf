package emperor

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"

	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// What an emperor keeps in the vault, for the next one of the instance:
//
//	vassal/NAME          a note of the vassal, with its generation
//	run/NAME/PROCESS.N   a run of its crew
//	jail/NAME/INODE      a jail, from before its devices are handed over until it is left
//	door/NAME            an open door
//	ports/NAME/PART      published ports, from before they are until they are not
//
// So a kill at any moment leaves what can be adopted, or what is in no note and
// is found by its cgroup or record, and ended.

// mark has the vault told of a vassal once the loop is done with the event.
func (e *Emperor) mark(v *member) {
	if e.Vault != nil && e.marked != nil {
		e.marked[v.name] = struct{}{}
	}
}

// flush tells the vault of the vassals that are marked.
func (e *Emperor) flush() {
	e.nameSoon()
	for name := range e.marked {
		e.keepVassal(name)
		// gofail: var vassalKept struct{}
	}
	clear(e.marked)
}

// Refill gives everything to a vault that is new, or lacks something.
func (e *Emperor) Refill(ctx context.Context) {
	e.jails.Range(func(_, j any) bool {
		e.keepJail(j.(*vassal.Jail))
		return true
	})
	e.refillPorts()
	told := make(chan []*door, 1)
	e.call(func() {
		var doors []*door
		for _, v := range e.vassals {
			e.mark(v)
			if v.door != nil {
				doors = append(doors, v.door)
			}
			e.keepCrew(v)
		}
		e.flush()
		told <- doors
	})
	select {
	case doors := <-told:
		for _, d := range doors {
			d.tellAgain() // the file system may make it wait
		}
	case <-e.stopped:
	case <-ctx.Done():
	}
}

// unkept are the keys of what the next emperor would miss.
type unkept struct {
	mu   sync.Mutex
	keys map[string]bool
}

// note notes whether what is under a key is kept, and says whether it is the
// first that is not.
func (u *unkept) note(key string, kept bool) (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if kept {
		delete(u.keys, key)
		return false
	}
	if u.keys == nil {
		u.keys = map[string]bool{}
	}
	first = len(u.keys) == 0
	u.keys[key] = true
	return first
}

func (u *unkept) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.keys)
}

// put puts something into the vault.
func (e *Emperor) put(key string, note any, files *vault.Files, hear string) {
	e.kept(key, e.Vault.Put(key, note, files, hear))
}

// kept notes whether something could be put into the vault. Who cannot be kept
// lives on all the same.
func (e *Emperor) kept(key string, err error) {
	if e.unkept.note(key, err == nil) {
		e.Log.Warn("not kept for the next emperor", "what", key, "err", err)
	}
}

func (e *Emperor) drop(key string) {
	e.unkept.note(key, true)
	if err := e.Vault.Drop(key); err != nil {
		e.Log.Debug("vault", "key", key, "err", err)
	}
}

// keepVassal keeps what the loop knows of a vassal.
func (e *Emperor) keepVassal(name string) {
	v := e.vassals[name]
	key := "vassal/" + name
	if v == nil || v.config == nil {
		e.drop(key)
		return
	}
	n := v.note()
	var files vault.Files
	hear := ""
	if v.gen != nil {
		r, err := v.gen.Keep(&files)
		switch {
		case errors.Is(err, os.ErrProcessDone), errors.Is(err, os.ErrClosed): // it has just ended, and the loop hears of it soon
			files.Close()
		case err != nil:
			files.Close()
			e.kept(key, err) // what is there of it is from before
			return
		default:
			if n.Generation = &r; v.gen.Channel != nil {
				hear = vassal.ChannelFile
			}
		}
		if v.notices != nil {
			if err := v.notices.socket.Keep(&files); err != nil {
				e.Log.Debug("notices are not kept", "vassal", name, "err", err)
			}
		}
	}
	e.keepOutput(v.output, &files, name)
	e.put(key, n, &files, hear)
}

// keepOutput adds the history, the file of logto, if there is one, and the pipe:
// what is in it would go with the last who has it open.
func (e *Emperor) keepOutput(o *output, files *vault.Files, name string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := errors.Join(files.Add(historyFile, o.history.file), files.Add(logFile, o.logs.folder()), files.Add(pipeFile, o.fifo)); err != nil {
		e.Log.Debug("output is not kept", "vassal", name, "err", err)
	}
}

// The names of an output's files.
const (
	logFile     = "log"
	pipeFile    = "pipe"
	historyFile = "history"
)

// keepRun keeps a run of a crew's process.
func (e *Emperor) keepRun(v *member, p *process, n *run) {
	if e.Vault == nil || n.gen == nil {
		return
	}
	var files vault.Files
	r, err := n.gen.Keep(&files)
	if err != nil {
		files.Close()
		if !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, os.ErrClosed) { // else it has just ended
			e.kept(runKey(v.name, n.id), err)
		}
		return
	}
	e.keepOutput(p.output, &files, v.name)
	e.put(runKey(v.name, n.id), runNote{Vassal: v.name, Process: p.name(), ID: n.id, PID: n.pid, Generation: r}, &files, "")
	// gofail: var runKept struct{}
}

// keepCrew keeps all runs of a crew.
func (e *Emperor) keepCrew(v *member) {
	if v.crew == nil {
		return
	}
	for _, p := range v.crew.processes {
		for _, n := range p.runs {
			e.keepRun(v, p, n)
		}
	}
}

func (e *Emperor) dropRun(v *member, n *run) {
	if n.gen != nil {
		e.drop(runKey(v.name, n.id))
	}
}

func runKey(vassal, id string) string { return "run/" + vassal + "/" + id }

// keepJail keeps a jail, until somebody lets it go.
func (e *Emperor) keepJail(j *vassal.Jail) {
	if e.Vault == nil {
		return
	}
	e.keeping.Lock()
	defer e.keeping.Unlock()
	if now, ok := e.jails.Load(j.Inode); !ok || now != j {
		return
	}
	var files vault.Files
	r, err := j.Keep(&files)
	if err != nil {
		files.Close()
		e.kept(jailKey(j), err)
		return
	}
	e.put(jailKey(j), r, &files, "")
}

func jailKey(j *vassal.Jail) string { return "jail/" + j.Name + "/" + strconv.FormatUint(j.Inode, 10) }

// letGo says that a jail is about to be closed.
func (e *Emperor) letGo(j *vassal.Jail) {
	e.keeping.Lock()
	defer e.keeping.Unlock()
	e.jails.Delete(j.Inode)
	e.drop(jailKey(j))
}

// keepDoor keeps a door while it is open.
func (e *Emperor) keepDoor(name string, d *door) {
	if e.Vault == nil {
		return
	}
	d.changed = func() {
		key := "door/" + name
		if d.closed || d.file == nil {
			e.drop(key)
			return
		}
		n := doorNote{Vassal: name, Address: d.address.String(), Dev: d.dev, Ino: d.ino}
		if d.as != nil {
			n.As = &[2]uint32{d.as.uid, d.as.gid}
		}
		var files vault.Files
		if err := files.Add("door", d.file); err != nil {
			e.kept(key, err)
			return
		}
		e.put(key, n, &files, "")
	}
}

// tellAgain is for a vault that is new.
func (d *door) tellAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell()
}
