package emperor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// What emperor-orphans can say.
const (
	AdoptOrphans = "adopt"
	KillOrphans  = "kill"
)

func setOrphans(c *Config, p ini.Pair) error {
	if p.Value != AdoptOrphans && p.Value != KillOrphans {
		return fmt.Errorf("%s = %s: want %s or %s", p.Key, p.Value, AdoptOrphans, KillOrphans)
	}
	c.Orphans = p.Value
	return nil
}

// Orphans are what a killed emperor of the instance has left, as far as the next
// one can adopt it. Those of nobody are nil.
type Orphans struct {
	Router bool // the router is adopted too: EndLeftovers lets it be

	Sockets []string // the router's, in the runtime directory: they stay, too

	all   []*orphan
	doors []*door        // of vassals that are not among all
	jails []*vassal.Jail // likewise
	vain  []string       // keys of what cannot be adopted, or is nobody's
	log   *slog.Logger
}

// orphan is a vassal without an emperor.
type orphan struct {
	note   note
	jail   *vassal.Jail
	gen    *vassal.Generation
	log    *os.File // of logto
	pipe   *os.File // of its output
	wrote  *os.File // the history of it
	heard  []byte
	notify *vassal.NotifySocket
	door   *door
	runs   []*orphanRun
	ports  map[hostPort]*os.File
	parts  int // how many keys its ports are under
}

// orphanRun is a run of its crew.
type orphanRun struct {
	note     runNote
	gen      *vassal.Generation
	pipe     *os.File
	followed func(pid int)
}

// FindOrphans makes orphans of what was in the vault. What does not fit together
// is said, and is none: its processes are for EndLeftovers.
func FindOrphans(items []vault.Item, log *slog.Logger) *Orphans {
	o := &Orphans{log: log}
	byKind := map[string][]vault.Item{}
	for _, i := range items {
		kind, _, _ := strings.Cut(i.Key, "/")
		byKind[kind] = append(byKind[kind], i)
		defer i.Files.Close()
	}
	jails := map[uint64]*vassal.Jail{}
	for _, i := range byKind["jail"] {
		var r vassal.JailRecord
		if !o.read(i, &r) {
			continue
		}
		if j, err := vassal.RestoreJail(r, i.Files); o.fits(i, err) {
			jails[j.Inode] = j
		}
	}
	byName := map[string]*orphan{}
	for _, i := range byKind["vassal"] {
		if v := o.vassal(i, jails); v != nil {
			o.all = append(o.all, v)
			byName[v.note.Name] = v
		}
	}
	for _, j := range jails {
		o.jails, o.vain = append(o.jails, j), append(o.vain, jailKey(j)) // nobody's
	}
	for _, i := range byKind["run"] {
		o.run(i, byName)
	}
	for _, i := range byKind["ports"] {
		o.ports(i, byName)
	}
	for _, i := range byKind["door"] {
		o.door(i, byName)
	}
	if o.Empty() {
		o.discard() // nobody adopts, and nobody else would
	}
	return o
}

func (o *Orphans) read(i vault.Item, note any) bool { return o.fits(i, json.Unmarshal(i.Note, note)) }

func (o *Orphans) fits(i vault.Item, err error) bool {
	if err != nil {
		o.log.Warn("cannot be adopted", "what", i.Key, "err", err)
		o.vain = append(o.vain, i.Key)
	}
	return err == nil
}

// vassal takes a vassal's jail out of jails.
func (o *Orphans) vassal(i vault.Item, jails map[uint64]*vassal.Jail) *orphan {
	v := &orphan{}
	if !o.read(i, &v.note) {
		return nil
	}
	n := &v.note
	if n.Name == "" || n.Config == nil {
		o.fits(i, errors.New("its note is not whole"))
		return nil
	}
	n.Config.Door = n.Door
	if n.Running == nil {
		n.Running = n.Config
	}
	v.log, v.pipe, v.wrote = i.Files.Take(logFile), i.Files.Take(pipeFile), i.Files.Take(historyFile)
	switch {
	case n.Jailed && n.Jail == 0:
		v.jail, _ = vassal.NewJail(n.Name, false, nil) // makes nothing
	case n.Jailed:
		v.jail = jails[n.Jail]
		delete(jails, n.Jail)
	}
	switch {
	case n.Generation == nil:
	case v.jail == nil:
		o.fits(i, errors.New("its jail is gone"))
	default:
		gen, err := v.jail.Restore(*n.Generation, i.Files, nil, nil)
		if o.fits(i, err) {
			v.gen, v.heard = gen, i.Heard
			v.notify = v.jail.RestoreNotify(n.Launches, i.Files)
		}
	}
	return v
}

func (o *Orphans) run(i vault.Item, byName map[string]*orphan) {
	r := &orphanRun{}
	if !o.read(i, &r.note) {
		return
	}
	v := byName[r.note.Vassal]
	if v == nil || v.gen == nil {
		o.vain = append(o.vain, i.Key) // it goes with its generation
		return
	}
	gen, err := v.jail.Restore(r.note.Generation, i.Files, v.gen, func(pid int) { r.followed(pid) })
	if o.fits(i, err) {
		r.gen, r.pipe = gen, i.Files.Take(pipeFile)
		v.runs = append(v.runs, r)
	}
}

func (o *Orphans) door(i vault.Item, byName map[string]*orphan) {
	var n doorNote
	if !o.read(i, &n) {
		return
	}
	a, err := parseAddress(n.Address, "/")
	d := newDoor(doorSpec{address: a}, nil)
	d.file, d.dev, d.ino = i.Files.Take("door"), n.Dev, n.Ino
	if err == nil && d.file == nil {
		err = errors.New("no socket")
	}
	if !o.fits(i, err) {
		return
	}
	if n.As != nil {
		d.as = &owner{n.As[0], n.As[1]}
	}
	if v := byName[n.Vassal]; v != nil {
		v.door = d
	} else {
		o.doors, o.vain = append(o.doors, d), append(o.vain, i.Key)
	}
}

// discard closes what nobody adopts.
func (o *Orphans) discard() {
	for _, d := range o.doors {
		if err := d.close(); err != nil {
			o.log.Warn("close the socket", "err", err)
		}
	}
	for _, j := range o.jails {
		if err := j.Close(); err != nil {
			o.log.Warn("close jail", "vassal", j.Name, "err", err)
		}
	}
	o.doors, o.jails = nil, nil
}

// Empty says that there is nobody to adopt.
func (o *Orphans) Empty() bool { return o == nil || len(o.all) == 0 }

// spares says whether a cgroup is that of an orphan, or of one of its runs.
func (o *Orphans) spares(c vassal.Cgroup) bool {
	if o == nil || c == "" {
		return false
	}
	return slices.ContainsFunc(o.all, func(v *orphan) bool {
		return v.gen != nil && v.gen.Cgroup() == c || slices.ContainsFunc(v.runs, func(r *orphanRun) bool { return r.gen.Cgroup() == c })
	})
}

// sparesLimits says whether the folder of a generation in v1 cgroup trees is an
// orphan's.
func (o *Orphans) sparesLimits(generation string) bool {
	return o != nil && slices.ContainsFunc(o.all, func(v *orphan) bool {
		return v.gen != nil && generation == generationName(v.note.Name, v.note.Launches)
	})
}

// sparesFile says whether a file in a folder of the runtime directory is an
// orphan's.
func (o *Orphans) sparesFile(folder, name string) bool {
	if o == nil {
		return false
	}
	if folder == "." {
		return !o.Empty() && (name == responderRecord || name == formerResponder) || o.Router && (name == routerRecord || name == RouterSocket || slices.Contains(o.Sockets, name)) || name == vaultRecord || name == VaultSocket || name == cgroupRecord || name == limitRecord || strings.HasPrefix(name, "resolv-")
	}
	return slices.ContainsFunc(o.all, func(v *orphan) bool {
		own := name == safeName(v.note.Name)
		if folder == outFolder { // that of a process which does not run is made again with its start
			return own || slices.ContainsFunc(v.runs, func(r *orphanRun) bool { return name == safeName(v.note.Name+"/"+r.note.Process) })
		}
		return own && v.gen != nil || slices.ContainsFunc(v.runs, func(r *orphanRun) bool { return name == safeName(v.note.Name+"/"+r.note.ID) })
	})
}
