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
	Dir     string // of a directory monitor
	Pattern string // of a glob monitor
}

// parseMonitor reads a value of the option emperor.
func parseMonitor(s string) (Monitor, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case ok && scheme == "dir":
		return Monitor{Dir: filepath.Clean(rest)}, nil
	case ok && scheme == "glob":
		_, err := filepath.Match(rest, "")
		return Monitor{Pattern: rest}, err
	case ok:
		return Monitor{}, fmt.Errorf("unknown monitor %q; want a directory, dir://DIRECTORY or glob://PATTERN", scheme)
	case s == "":
		return Monitor{}, errors.New("want a directory, dir://DIRECTORY or glob://PATTERN")
	case strings.ContainsAny(s, "*?["):
		_, err := filepath.Match(s, "")
		return Monitor{Pattern: s}, err
	}
	return Monitor{Dir: filepath.Clean(s)}, nil
}

// iniFile is a vassal's file as the last scan saw it.
type iniFile struct {
	name  string // the vassal's
	path  string
	owner owner
	id    fileID

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
}

// scan looks at the inis of all monitors.
func scan(monitors []Monitor) *inis {
	s := &inis{found: map[string]iniFile{}, unseen: map[string]bool{}}
	for _, m := range monitors {
		paths, err := m.paths()
		if err != nil {
			s.errs = append(s.errs, err)
			s.unseen[m.Dir] = true
		}
		for _, path := range paths {
			s.see(path)
		}
	}
	return s
}

func (s *inis) see(path string) {
	f, err := stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // removed since, or a dangling link
	case errors.Is(err, errNotRegular):
		s.errs = append(s.errs, err)
		return
	case err != nil:
		s.errs = append(s.errs, err)
		s.unseen[path] = true
		return
	}
	if other, ok := s.found[f.name]; ok {
		if other.path != f.path {
			s.errs = append(s.errs, fmt.Errorf("%s: the name %q is taken by %s; rename one of them", f.path, f.name, other.path))
		}
		return
	}
	s.found[f.name] = f
	s.order = append(s.order, f.name)
}

// missing says that a vassal's file is surely gone. A folder that cannot be
// read, because its file system is away, stops nobody.
func (s *inis) missing(f iniFile) bool {
	_, there := s.found[f.name]
	return !there && !s.unseen[f.path] && !s.unseen[filepath.Dir(f.path)]
}

func (m Monitor) paths() ([]string, error) {
	if m.Pattern != "" {
		paths, err := filepath.Glob(m.Pattern)
		return slices.DeleteFunc(paths, func(p string) bool { return filepath.Ext(p) != iniSuffix }), err
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, fmt.Errorf("emperor directory: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == iniSuffix && e.Name() != iniSuffix && len(e.Name()) < 255 {
			paths = append(paths, filepath.Join(m.Dir, e.Name()))
		}
	}
	return paths, nil
}

const iniSuffix = ".ini"

var errNotRegular = errors.New("not a regular file")

func stat(path string) (iniFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return iniFile{}, err
	}
	if !st.Mode().IsRegular() {
		return iniFile{}, fmt.Errorf("%s is %w", path, errNotRegular)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return iniFile{
		name: NameOf(path), path: path,
		owner: owner{sys.Uid, sys.Gid},
		id:    fileID{sys.Dev, sys.Ino, sys.Mtim.Nano(), sys.Size},
	}, nil
}

// watch calls changed, debounced, when something happens in a monitor's
// directory, until ctx is done. The kernel loses notices when they come too
// fast, so the loop rescans by the clock as well.
func watch(ctx context.Context, monitors []Monitor, log *slog.Logger, changed func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("no notices about changed inis; only rescans", "err", err)
		return
	}
	defer w.Close()
	for _, m := range monitors {
		dir := m.Dir
		if m.Pattern != "" {
			dir = filepath.Dir(m.Pattern)
		}
		if strings.ContainsAny(dir, "*?[") {
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
			// In the middle it is the name of a file beside an ini.
			if strings.Contains(filepath.Base(e.Name), iniSuffix) && settle == nil {
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
