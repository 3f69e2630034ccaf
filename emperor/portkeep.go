package emperor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// keptPorts is how many ports are kept under one key of the vault's.
const keptPorts = 200

// portsNote is what is kept of some of a vassal's ports, beside their sockets:
// file I is the socket of port I.
type portsNote struct {
	Vassal string     `json:"vassal"`
	Ports  []hostPort `json:"ports"`
}

func portsKey(vassal string, part int) string { return "ports/" + vassal + "/" + strconv.Itoa(part) }

// keepPorts keeps the ports that a vassal has, as they are now.
func (e *Emperor) keepPorts(name string) {
	if e.Vault == nil {
		return
	}
	p := &e.ports
	p.keeping.Lock()
	defer p.keeping.Unlock()
	notes, files, errs := p.snapshot(name)
	for part := range notes {
		if errs[part] != nil {
			files[part].Close()
			e.kept(portsKey(name, part), errs[part])
			continue
		}
		e.put(portsKey(name, part), notes[part], &files[part], "")
	}
	if p.parts == nil {
		p.parts = map[string]int{}
	}
	for old := len(notes); old < p.parts[name]; old++ {
		e.drop(portsKey(name, old))
	}
	if p.parts[name] = len(notes); len(notes) == 0 {
		delete(p.parts, name)
	}
}

// snapshot is what there is to keep of a vassal's ports, key by key.
func (p *publications) snapshot(name string) (notes []portsNote, files []vault.Files, errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.of[name]
	if b == nil {
		return nil, nil, nil
	}
	for ports := range slices.Chunk(slices.SortedFunc(maps.Keys(b.held), comparePorts), keptPorts) {
		var fs vault.Files
		var err error
		for i, h := range ports {
			err = errors.Join(err, fs.Add(strconv.Itoa(i), b.held[h]))
		}
		notes, files, errs = append(notes, portsNote{Vassal: name, Ports: ports}), append(files, fs), append(errs, err)
	}
	return notes, files, errs
}

// refillPorts gives all ports to a vault that is new.
func (e *Emperor) refillPorts() {
	e.ports.mu.Lock()
	names := slices.Collect(maps.Keys(e.ports.of))
	e.ports.mu.Unlock()
	for _, name := range names {
		e.keepPorts(name)
	}
}

// ports gives a vassal its ports back. Those of nobody are closed.
func (o *Orphans) ports(i vault.Item, byName map[string]*orphan) {
	var n portsNote
	if !o.read(i, &n) {
		return
	}
	v := byName[n.Vassal]
	if v == nil || v.jail == nil {
		o.vain = append(o.vain, i.Key)
		return
	}
	if v.ports == nil {
		v.ports = map[hostPort]*os.File{}
	}
	for at, h := range n.Ports {
		f := i.Files.Take(strconv.Itoa(at))
		if f == nil {
			o.fits(i, fmt.Errorf("no socket of port %s", h))
			continue
		}
		v.ports[h] = f
	}
	if part, err := strconv.Atoi(i.Key[strings.LastIndexByte(i.Key, '/')+1:]); err == nil {
		v.parts = max(v.parts, part+1)
	}
}

// links are the devices of an orphan's jail.
func (o *orphan) links() []vassal.Link {
	if o.jail == nil {
		return nil
	}
	return o.jail.Links()
}

// adoptPorts goes on with what the orphans publish. It comes before anything of
// the host's is touched, so that what is published stays so. One that was not
// put in force yet is a start's, or a change's, to publish.
func (e *Emperor) adoptPorts(orphans *Orphans) {
	p := &e.ports
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of, p.parts = map[string]*publication{}, map[string]int{}
	for _, o := range orphans.all {
		name := o.note.Name
		p.parts[name] = o.parts
		list, want, bad := publishedBy(o.note.Running, o.links())
		if len(o.ports) == 0 || bad != nil {
			closePorts(o.ports)
			continue
		}
		b := &publication{jail: o.jail, list: list, have: list, want: want, held: o.ports}
		b.trim()
		got, err := bindPorts(want, b.held, nil)
		if err != nil {
			e.Log.Warn("a published port is not held for the vassal", "vassal", name, "err", err)
		}
		maps.Copy(b.held, got)
		p.of[name] = b
	}
}
