package emperor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Monitor is one place where vassals' inis come from.
type Monitor struct {
	Dir     string // of a directory monitor, or a single file
	Pattern string // of a glob monitor
	Section string // that counts in its inis; empty: the usual one
}

// parseMonitor reads a value of the option emperor.
func parseMonitor(s string) (Monitor, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	file, section := cutSection(s)
	switch {
	case ok && scheme == "dir":
		return Monitor{Dir: filepath.Clean(rest)}, nil
	case ok && scheme == "glob":
		pattern, section := cutSection(rest)
		_, err := filepath.Match(pattern, "")
		return Monitor{Pattern: pattern, Section: section}, err
	case ok:
		return Monitor{}, fmt.Errorf("unknown monitor %q; want a directory, dir://DIRECTORY or glob://PATTERN", scheme)
	case s == "":
		return Monitor{}, errors.New("want a directory, dir://DIRECTORY or glob://PATTERN")
	case hasWildcard(file):
		_, err := filepath.Match(file, "")
		return Monitor{Pattern: file, Section: section}, err
	}
	return Monitor{Dir: filepath.Clean(file), Section: section}, nil
}

// cutSection cuts FILE.ini:SECTION; a colon anywhere else is part of a name.
func cutSection(s string) (file, section string) {
	if i := strings.LastIndex(s, iniSuffix+":"); i >= 0 && !strings.Contains(s[i:], "/") && i+len(iniSuffix)+1 < len(s) {
		return s[:i+len(iniSuffix)], s[i+len(iniSuffix)+1:]
	}
	return s, ""
}

// iniFile is a vassal's file as the last scan saw it.
type iniFile struct {
	name     string // the vassal's
	path     string
	section  string // that counts; empty: the usual one
	owner    owner
	id       fileID
	skeleton bool   // a link that stands for its owner, whose target may be root's
	refused  string // why nobody reads it; empty: it is read
	show     bool   // somebody wants to see its options; nothing is made of them

	door   string // the file that holds the address of its socket; empty: none
	doorID fileID
}

// fileID changes whenever the file does: another inode, another time, another size.
type fileID struct {
	dev, ino uint64
	mtime    int64 // ns
	size     int64
}

type owner struct{ uid, gid uint32 }

// inis is what a scan found.
type inis struct {
	found  map[string]iniFile // by the vassal's name; the first file of a name has it
	order  []string
	errs   []error         // the problems on the way
	unseen map[string]bool // folders and files of which nobody knows what is there now

	entitled func(iniFile) bool // whether its owner may have a vassal of that name
	holders  map[string]owner   // who has each name by now, where others may not take it
}

// scan looks at the inis of all monitors. Of two of one name the first counts, but
// for who has the name already, of whom holders knows in tyrant mode.
func (c *Config) scan(holders map[string]owner) *inis {
	s := &inis{found: map[string]iniFile{}, unseen: map[string]bool{}, holders: holders}
	s.entitled = func(f iniFile) bool { return !c.Tyrant || c.Policy.names(f.owner, f.name) }
	for _, m := range c.Monitors {
		paths, err := c.paths(m)
		if err != nil {
			s.errs = append(s.errs, err)
			s.unseen[m.Dir] = true
		}
		for _, path := range paths {
			f, err := c.look(path, m.Section)
			if folders := m.folders(path); folders != "" {
				f.name = c.nameOf(folders, m.Section)
			}
			s.see(path, f, err)
		}
	}
	for _, name := range s.order {
		f, err := c.withDoor(s.found[name])
		if s.found[name] = f; err != nil {
			s.errs = append(s.errs, err)
		}
	}
	return s
}

// folders are what tells the files of a pattern apart that all have the same
// name of their own, as of /srv/*/conf/app.ini: the folders that its wildcards
// stand for. It is empty where the files' names do.
func (m Monitor) folders(path string) string {
	pattern, parts := strings.Split(m.Pattern, "/"), strings.Split(path, "/")
	last := len(pattern) - 1
	if len(parts) != len(pattern) || hasWildcard(pattern[last]) {
		return ""
	}
	var folders []string
	for i, part := range pattern {
		if hasWildcard(part) {
			folders = append(folders, parts[i])
		}
	}
	if name := strings.Join(folders, "-"); printableName(name) && len(name) <= maxName {
		return name
	}
	return ""
}

func hasWildcard(pattern string) bool { return strings.ContainsAny(pattern, "*?[") }

func (s *inis) see(path string, f iniFile, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // removed since
	case errors.Is(err, errNotRegular), errors.Is(err, errDangling), errors.Is(err, errName):
		s.errs = append(s.errs, err)
		return
	case err != nil:
		s.errs = append(s.errs, err)
		s.unseen[path] = true
		return
	}
	if other, ok := s.found[f.name]; ok {
		if s.prefers(f, other) {
			s.found[f.name], f, other = f, other, f
		}
		if other.path != f.path || other.section != f.section {
			s.errs = append(s.errs, fmt.Errorf("%s: the name %q is taken by %s; rename one of them", f.path, f.name, other.path))
		}
		return
	}
	s.found[f.name] = f
	s.order = append(s.order, f.name)
}

// prefers says that a name is f's, though another ini that was found before has it,
// too: nobody takes another's vassal away by its name.
func (s *inis) prefers(f, other iniFile) bool {
	if mine, theirs := s.entitled(f), s.entitled(other); mine != theirs {
		return mine
	}
	holder, held := s.holders[f.name]
	return held && f.owner == holder && other.owner != holder
}

// missing says that a vassal's file is surely gone. A folder that cannot be
// read, because its file system is away, stops nobody.
func (s *inis) missing(f iniFile) bool {
	_, there := s.found[f.name]
	return !there && !s.unseen[f.path] && !s.unseen[filepath.Dir(f.path)]
}

func (c *Config) paths(m Monitor) ([]string, error) {
	if m.Pattern != "" {
		paths, err := filepath.Glob(m.Pattern)
		return slices.DeleteFunc(paths, func(p string) bool { return !c.isIni(p) }), err
	}
	entries, err := os.ReadDir(m.Dir)
	if errors.Is(err, syscall.ENOTDIR) && c.isIni(m.Dir) {
		return []string{m.Dir}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("emperor directory: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if c.isIni(e.Name()) {
			paths = append(paths, filepath.Join(m.Dir, e.Name()))
		}
	}
	return paths, nil
}

const iniSuffix = ".ini"

// matters says whether a file of this name may be an ini, or have the address of
// an ini's socket.
func (c *Config) matters(path string) bool {
	own, ok := strings.CutSuffix(path, c.OnDemand.Extension)
	return c.isIni(path) || ok && c.isIni(own)
}

// watch calls changed, debounced, when something happens in a monitor's
// directory, until ctx is done. The kernel loses notices when they come too
// fast, so the loop rescans by the clock as well.
func (c *Config) watch(ctx context.Context, log *slog.Logger, changed func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("no notices about changed inis; only rescans", "err", err)
		return
	}
	defer w.Close()
	for _, m := range c.Monitors {
		dir := m.Dir
		if m.Pattern != "" {
			dir = filepath.Dir(m.Pattern)
		} else if c.isIni(dir) {
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				dir = filepath.Dir(dir)
			}
		}
		if hasWildcard(dir) {
			continue
		}
		if err := w.Add(dir); err != nil {
			log.Warn("no notices about changed inis; only rescans", "dir", dir, "err", err)
		}
	}
	settle := time.After(0) // what came before the watch began was told to nobody
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if c.matters(e.Name) && settle == nil {
				settle = time.After(debounce)
			}
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			log.Warn("notices about changed inis", "err", err)
			settle = time.After(debounce)
		case <-settle:
			settle = nil
			changed()
		case <-ctx.Done():
			return
		}
	}
}

// debounce lets an editor finish its writes: a file that is half there would
// only be an invalid ini for a moment.
const debounce = 10 * time.Millisecond
