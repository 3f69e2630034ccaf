package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
	"fiefdom/internal/migrate"
	"fiefdom/vassal"
)

// mover goes through files and collects what is found out about them.
type mover struct {
	found  []migrate.Finding
	judged map[ini.Pair]bool  // options, their values aside
	said   map[ini.Error]bool // errors
	files  map[string]bool    // vassals that were judged
}

func newMover() *mover {
	return &mover{judged: map[ini.Pair]bool{}, said: map[ini.Error]bool{}, files: map[string]bool{}}
}

// policy is what an emperor's file says about its vassals.
type policy struct {
	tyrant        bool
	before, after []inert // vassals-include and vassals-inherit
	suffixes      []string
	magic         bool // executable inis are run
}

// path judges what the user named: a folder, an emperor's file or a vassal's.
func (m *mover) path(path string) error {
	if err := mustExist(path); err != nil {
		return err
	}
	paths := []string{path}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		if paths, err = m.folder(path, policy{}); err != nil {
			return err
		}
	}
	var vassals []string
	for i, in := range readOwned(paths, false) {
		if in.emperors() {
			m.emperor(in)
		} else {
			vassals = append(vassals, paths[i])
		}
	}
	m.vassals(vassals, policy{})
	return nil
}

// otherFormats are files that uWSGI's emperor takes for vassals too.
var otherFormats = []string{".xml", ".yml", ".yaml", ".js", ".json"}

// folder lists the inis of a folder, and reports what is a vassal for uWSGI alone.
func (m *mover) folder(dir string, p policy) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	return m.inis(paths, p), nil
}

// inis chooses those that our emperor would take, too.
func (m *mover) inis(paths []string, p policy) []string {
	var inis []string
	for _, path := range paths {
		suffix := filepath.Ext(path)
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && (suffix == ".ini" || slices.Contains(p.suffixes, suffix)):
			if to, err := os.Readlink(path); err == nil {
				m.note(path, migrate.Refused, "a link to "+to+", which is not there", true)
			}
		case err != nil || !st.Mode().IsRegular():
		case p.magic && st.Mode()&0o111 != 0:
			m.note(path, migrate.Works, "it is executable, so what it prints is its ini; it is not run here", false)
		case suffix == ".ini" || slices.Contains(p.suffixes, suffix):
			inis = append(inis, path)
		case slices.Contains(otherFormats, suffix):
			m.note(path, migrate.Missing, "vassals are inis; write its options as one", true)
		}
	}
	return inis
}

func (m *mover) note(file string, v migrate.Fate, text string, hand bool) {
	m.found = append(m.found, migrate.Finding{File: file, Fate: v, Text: text, NeedsHand: hand})
}

// emperor judges an emperor's file and all that it points at.
func (m *mover) emperor(in inert) {
	f := in.file(nil, nil)
	l, errs := parseEmperor(in.File, f)
	m.judge(in, f, errs, nil, func(p ini.Pair) migrate.Option { return migrate.Option{Name: p.Key, Side: migrate.Emperor} })
	policy := m.policy(in, l.config.Tyrant)
	for _, mon := range l.config.Monitors {
		var paths []string
		var err error
		if mon.Pattern != "" {
			if paths, err = filepath.Glob(mon.Pattern); err == nil {
				paths = m.inis(paths, policy)
			}
		} else {
			paths, err = m.folder(mon.Dir, policy)
		}
		if err != nil {
			m.note(in.File, migrate.Refused, fmt.Sprintf("its vassals cannot be listed: %v", err), true)
		}
		m.vassals(paths, policy)
	}
}

// policy reads what the options of an emperor's file say about its vassals, as
// far as the tables honour them.
func (m *mover) policy(in inert, tyrant bool) policy {
	p := policy{tyrant: tyrant}
	for _, pair := range in.Pairs {
		if !migrationTables.Honoured(migrate.Emperor, pair.Key) || unread(pair) {
			continue
		}
		switch pair.Key {
		case "vassals-include-before", "vassals-inherit-before":
			p.before = append(p.before, readOwned([]string{pair.Value}, true)...)
		case "vassals-include", "vassals-inherit":
			p.after = append(p.after, readOwned([]string{pair.Value}, true)...)
		case "vassal-set", "vassals-set":
			key, value, _ := strings.Cut(pair.Value, "=")
			p.before = append(p.before, inert{File: in.File, Pairs: []ini.Pair{{Key: key, Value: value, Pos: pair.Pos}}})
		case "emperor-extra-extension", "emperor-extra-ext":
			p.suffixes = append(p.suffixes, pair.Value)
		case "emperor-magic-exec":
			p.magic = ini.ParseBool(pair.Value)
		}
	}
	return p
}

// vassals judges vassals' inis. Those that are judged already are left out: in
// a folder there may be an emperor's file that points back at it.
func (m *mover) vassals(paths []string, p policy) {
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		seen := m.files[path]
		m.files[path] = true
		return seen
	})
	for _, in := range readOwned(paths, true) {
		f := in.file(p.before, p.after)
		c, errs := vassal.Parse(emperor.NameOf(in.File), f)
		var forbidden ini.Errors
		if owner, _ := ownerOf(in.File); p.tyrant {
			forbidden = emperor.CheckTyrant(c, owner.Uid, owner.Gid)
		}
		given := map[ini.Pair]bool{}
		for _, pair := range c.App {
			given[pair] = true
		}
		if len(c.App) > 0 {
			for _, pair := range in.Skipped {
				given[pair] = true
			}
		}
		m.judge(in, f, errs, forbidden, func(p ini.Pair) migrate.Option {
			return migrate.Option{Name: p.Key, Side: migrate.Vassal, Given: given[p]}
		})
	}
}

const (
	notRead  = "what it refers to is read, and a command run, only when the emperor reads the file, with the rights of the file's owner"
	notOpen  = "%s:// is not read for this file; use a file or exec://"
	notTaken = "it stands in a branch that is not taken here"
)

// judge adds what is found out about the options of f, which is in with what
// surrounds it, and about those that in leaves out; the errors of those who parsed
// them, unless they are about a value that nobody looked up; and what the
// emperor forbids.
func (m *mover) judge(in inert, f *ini.File, errs, forbidden ini.Errors, option func(ini.Pair) migrate.Option) {
	at := map[ini.Pos]int{} // the last finding of a line
	dim := map[ini.Pos]bool{}
	for _, p := range f.Pairs {
		dim[p.Pos] = dim[p.Pos] || unread(p)
		if one, ok := m.option(f, p, option(p)); ok {
			at[p.Pos] = len(m.found)
			m.found = append(m.found, one)
		}
	}
	for _, p := range in.Skipped {
		if one, ok := m.option(f, p, option(p)); ok {
			one.Text = join(one.Text, notTaken)
			m.found = append(m.found, one)
		}
	}
	errs = slices.DeleteFunc(errs, func(e ini.Error) bool { return dim[e.Pos] })
	for _, e := range slices.Concat(in.Problems, errs, forbidden) {
		m.problem(e, at)
	}
}

// option is the finding about an option by its name; false if there is one of
// its line already.
func (m *mover) option(file *ini.File, p ini.Pair, o migrate.Option) (migrate.Finding, bool) {
	key := ini.Pair{Key: p.Key, Pos: p.Pos}
	if m.judged[key] || p.Made {
		return migrate.Finding{}, false
	}
	m.judged[key] = true
	f := migrate.Finding{File: p.Pos.File, Line: p.Pos.Line, Option: p.Key}
	f.Fate, f.Text = migrationTables.Judge(o)
	switch {
	case f.Fate == migrate.Unknown && file.Placeholders[p.Key]:
		f.Fate, f.Text = migrate.Works, "a placeholder"
	case f.Fate == migrate.Unknown:
		f.Text = "uWSGI does not know it either"
	case closed(p.Value, o.Side) != "":
		f.Fate, f.Text, f.NeedsHand = migrate.Refused, fmt.Sprintf(notOpen, closed(p.Value, o.Side)), true
		return f, true
	case strings.Contains(p.Value, "@(") || strings.Contains(p.Value, "exec://"):
		f.Text = join(f.Text, notRead)
	}
	f.NeedsHand = f.Fate == migrate.Missing
	return f, true
}

// closed is the scheme of a reference that a file of this side may not use; "" if
// there is none.
func closed(value string, side migrate.Side) string {
	schemes := []string{"call", "callint", "sym", "emperor"}
	if side == migrate.Vassal {
		schemes = append(schemes, "fd")
	}
	for _, s := range schemes {
		if strings.Contains(value, "@("+s+"://") {
			return s
		}
	}
	return ""
}

// problem adds an error or a warning to the finding of its line, or as one of
// its own.
func (m *mover) problem(e ini.Error, at map[ini.Pos]int) {
	if m.said[e] {
		return
	}
	m.said[e] = true
	i, ok := at[e.Pos]
	if !ok {
		f := migrate.Finding{File: e.Pos.File, Line: e.Pos.Line, Fate: migrate.Refused, Text: e.Message, NeedsHand: !e.Warning}
		if e.Warning {
			f.Fate = migrate.Works
		}
		m.found = append(m.found, f)
		return
	}
	f := &m.found[i]
	f.NeedsHand = f.NeedsHand || !e.Warning
	switch {
	case f.Fate == migrate.Missing: // that the parser does not know it either is no news
	case f.Fate == migrate.Unknown:
		f.Text = e.Message
	case e.Warning:
		f.Text = join(f.Text, e.Message)
	default:
		f.Fate, f.Text = migrate.Refused, e.Message
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
