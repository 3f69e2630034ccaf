package emperor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// placeBound is a folder below which inis may name places, as a policy has it.
type placeBound struct {
	path     string // ownerWord stands for the owner's name
	readOnly bool   // bind may show it, and let nobody write
}

// ownerWord stands for the owner's name in patterns and folders.
const ownerWord = "{owner}"

// confinePolicies are the options of a policy that are about confinement.
var confinePolicies = []ini.Option[bounds]{
	{
		Name: "confine", Kind: ini.Text, Since: "0.1", Set: setLevelBound,
		Meaning: "strict, default or compat: the widest level that an ini may ask for, whatever the emperor's ini says; one that does not ask has the narrower of this and what it would have without",
	},
	{
		Name: "writable", Kind: ini.Path, Since: "0.1", Repeats: true, Set: setPlaceBound(func(b *bounds) *[]placeBound { return &b.writable }, false),
		Meaning: "a folder below which an ini may name places that its app writes; {owner} is the owner's name",
	},
	{
		Name: "bind", Kind: ini.Path, Since: "0.1", Repeats: true, Set: setPlaceBound(func(b *bounds) *[]placeBound { return &b.binds }, true),
		Meaning: "FOLDER[:ro]: one below which an ini may name what bind shows to its app, with :ro only for reading; {owner} is the owner's name",
	},
	{
		Name: "rootfs", Kind: ini.Path, Since: "0.1", Repeats: true, Set: setPlaceBound(func(b *bounds) *[]placeBound { return &b.roots }, false),
		Meaning: "a folder below which the roots are that an ini may name by rootfs; {owner} is the owner's name",
	},
	{
		Name: "listen-ports", Kind: ini.List, Since: "0.1", Set: setListenBound,
		Meaning: "TCP ports and ranges of them, such as 8000-8010: the only ones that an app may listen on, whatever its ini says; one that does not say may listen on all of these",
	},
}

func setLevelBound(b *bounds, p ini.Pair) error {
	switch l := vassal.Level(p.Value); l {
	case vassal.LevelStrict, vassal.LevelDefault, vassal.LevelCompat:
		b.confine = l
		return nil
	}
	return fmt.Errorf("confine = %.100s: want strict, default or compat; a policy takes no owner's app out of all confinement", p.Value)
}

func setPlaceBound(field func(*bounds) *[]placeBound, binds bool) func(*bounds, ini.Pair) error {
	return func(b *bounds, p ini.Pair) error {
		if p.Value == boundNone {
			*field(b) = nil
			return nil
		}
		var one placeBound
		one.path = p.Value
		if binds {
			one.path, one.readOnly = strings.CutSuffix(p.Value, ":ro")
		}
		if !filepath.IsAbs(one.path) || strings.ContainsRune(one.path, 0) {
			return fmt.Errorf("%s = %.100s: want an absolute path, such as /srv/%s", p.Key, p.Value, ownerWord)
		}
		one.path = filepath.Clean(one.path)
		if err := one.plain(); err != nil {
			return fmt.Errorf("%s = %.100s: %w", p.Key, p.Value, err)
		}
		*field(b) = append(*field(b), one)
		return nil
	}
}

// plain says why no place can be below the folder: none is found behind a link.
func (p placeBound) plain() error {
	fixed, _, owners := strings.Cut(p.path, ownerWord)
	if owners {
		fixed = filepath.Dir(fixed + "x")
	}
	real, err := filepath.EvalSymlinks(fixed)
	if err != nil || real == fixed {
		return nil // it is not there yet, or not for who only checks
	}
	return fmt.Errorf("%s is a symbolic link, and nothing behind one can be a place of an ini's; write %s", fixed, real)
}

// folder is the one for an owner; empty where his name is no part of a path.
func (b *bounds) folder(p placeBound) string {
	if strings.Contains(p.path, ownerWord) && (!filepath.IsLocal(b.owner) || filepath.Base(b.owner) != b.owner || b.owner == ".") {
		return ""
	}
	return strings.ReplaceAll(p.path, ownerWord, b.owner)
}

// below says whether a path is in one of the folders. No link leads out of there,
// as places are opened without following any.
func (b *bounds) below(path string, all []placeBound, writes bool) bool {
	return slices.ContainsFunc(all, func(p placeBound) bool {
		folder := b.folder(p)
		return folder != "" && vassal.Under(path, folder) && (!writes || !p.readOnly)
	})
}

func setListenBound(b *bounds, p ini.Pair) error {
	all, err := words(p)
	b.listen = nil
	for _, word := range all {
		from, to, ranged := strings.Cut(word, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if errors.Join(err1, err2) != nil || first == 0 || last < first {
			return fmt.Errorf("listen-ports: %q is no port and no range of them; want such as 8000-8010", word)
		}
		for n := first; n <= last; n++ {
			b.listen = append(b.listen, uint16(n))
		}
	}
	slices.Sort(b.listen)
	b.listen = slices.Compact(b.listen)
	if len(b.listen) > maxOwnerPorts {
		return fmt.Errorf("listen-ports: %d ports; at most %d are counted, so write any for all of them", len(b.listen), maxOwnerPorts)
	}
	return err
}

// confined judges how far an ini has its app confined, and the places that it names.
func (t *trial) confined() {
	k, at := &t.config.Confine, t.config.Isolation.At
	if t.says("confine") && k.Level != "" && t.bounds.confine.Narrower(k.Level) {
		t.refuse(at["confine"], "confine", "confine = "+string(k.Level))
	}
	root := ""
	if t.config.Isolation.Rootfs {
		root = t.config.Isolation.Root
		if t.says("rootfs") && !t.below(root, t.roots, true) {
			t.refuse(at["rootfs"], "rootfs", "rootfs = "+root)
		}
	}
	for _, w := range k.Writable {
		if t.says("writable") && !t.below(filepath.Join(root, w.Path), t.writable, true) {
			t.refuse(w.Pos, "writable", "writable = "+w.Path)
		}
	}
	for _, b := range k.Binds {
		if t.says("bind") && !t.below(b.Source, t.binds, !b.ReadOnly) {
			what := "bind = " + b.Source
			if !b.ReadOnly && t.below(b.Source, t.binds, false) {
				what += " without :ro"
			}
			t.refuse(b.Pos, "bind", what)
		}
	}
	for _, port := range k.Ports {
		if t.says("listen-ports") && !slices.Contains(t.listen, port) {
			t.refuse(at["listen-ports"], "listen-ports", fmt.Sprintf("listen-ports = %d", port))
		}
	}
	for _, p := range t.config.Publish {
		if port := deafPort(p, t.listen); t.says("listen-ports") && port != 0 {
			t.refuse(p.Pos, "listen-ports", fmt.Sprintf("publish = %s, which leads to port %d of the app's,", p, port))
		}
	}
}

// levels are the one that an owner's app has if its ini does not say, and the
// widest that it may ask for; least is what both are without a policy.
func (b *bounds) levels(least vassal.Level) (unsaid, widest vassal.Level) {
	switch {
	case !b.says("confine"):
		return least, least
	case b.confine.Narrower(least):
		return b.confine, b.confine
	}
	return least, b.confine
}

// listens are the TCP ports that the app of an owner may listen on, of those that
// his ini has.
func (b *bounds) listens(ports []uint16, counted bool) ([]uint16, bool) {
	switch {
	case !b.says("listen-ports"):
		return ports, counted
	case !counted:
		return b.listen, true
	}
	return slices.DeleteFunc(ports, func(p uint16) bool { return !slices.Contains(b.listen, p) }), true
}
