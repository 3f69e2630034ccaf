package emperor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// limits are those of a vassal's ini with all that it includes: more than
// anybody writes, and little enough that reading it costs nobody anything.
var limits = ini.Limits{Pairs: 3000, Value: 128 << 10, Total: 4 << 20, Sources: 200}

// maxText bounds each file that a vassal's ini is made of, in bytes.
const maxText = 256 << 10

// read reads one vassal's ini with the rights of the caller, and what the
// emperor puts around it. check, if any, sees the very file that is read.
func (c *Common) read(f expandFileRequest, check func(*unix.Stat_t) error) (x expansion) {
	x.Name = f.Name
	dir, base := filepath.Dir(f.Path), filepath.Base(f.Path)
	name := base
	if f.Section != "" {
		name += ":" + f.Section
	}
	uid := uint32(os.Getuid())
	var text []byte // of the vassal's own ini
	first := true   // the first file that is read as the vassal's is its own
	own := dir + "/" + base
	before, after, environ := c.beside(f.Name)
	options := ini.Networked(ini.Options{
		Dir: dir, IsOption: vassal.Known, Before: before, After: after, Environ: environ, Limits: limits,
		LookupEnv: func(name string) (string, bool) { return lookupIn(environ, name) },
		ReadFile: func(path string) (b []byte, err error) {
			defer func() {
				x.Unrest = x.Unrest || ini.IsBeingWritten(err)
				if err == nil && len(b) > maxText {
					b, err = nil, fmt.Errorf("it has more than %d bytes", maxText)
				}
			}()
			switch {
			case first && path == own:
				first = false
				text, err = c.readOwn(path, check)
				return text, err
			case c.names(path, dir):
				return readCommon(path, uid)
			case uid == 0:
				return ini.ReadFile(path, func(st *unix.Stat_t) error { return refuseWriters(st, uid) })
			}
			return ini.ReadFile(path, nil)
		},
	})
	got, err := ini.Load(name, options)
	if err != nil {
		if !errors.As(err, &x.Errors) {
			x.Errors = ini.Errors{{Pos: ini.Pos{File: base}, Message: err.Error()}}
		}
		placeAll(dir, x.Errors)
		return x
	}
	got.Name = f.Path
	for i := range got.Pairs {
		place(dir, &got.Pairs[i].Pos)
	}
	placeAll(dir, got.Warnings)
	if f.Show {
		x.Pairs, x.Errors = got.Pairs, got.Warnings
		return x
	}
	config, errs := vassal.Parse(f.Name, got)
	x.Config, x.Errors = config, append(got.Warnings, errs...)
	c.readAttributes(&x, own, dir, text, options)
	if f.Door != "" {
		x.readDoor(f.Door)
	}
	return x
}

// place makes a place's file independent of the folder; options of the
// environment have none.
func place(dir string, p *ini.Pos) {
	if p.File != "" && !filepath.IsAbs(p.File) && !strings.HasPrefix(p.File, "$") {
		p.File = filepath.Join(dir, p.File)
	}
}

func placeAll(dir string, errs ini.Errors) {
	for i := range errs {
		place(dir, &errs[i].Pos)
	}
}

// lookupIn finds a variable among those that the emperor gives, then in the
// environment.
func lookupIn(environ []string, name string) (string, bool) {
	if i := slices.IndexFunc(environ, func(v string) bool { return strings.HasPrefix(v, name+"=") }); i >= 0 {
		return environ[i][len(name)+1:], true
	}
	return os.LookupEnv(name)
}

// readOwn reads the vassal's own ini, or what it writes if it is a program and
// the emperor runs such.
func (c *Common) readOwn(path string, check func(*unix.Stat_t) error) ([]byte, error) {
	runs := false
	text, err := ini.ReadFile(path, func(st *unix.Stat_t) error {
		const executable = 0o111
		runs = c.MagicExec && st.Mode&executable != 0
		if check == nil {
			return nil
		}
		return check(st)
	})
	if err != nil || !runs {
		return text, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The file may be another one by now: this one is judged, and run.
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(&st); err != nil {
			return nil, err
		}
	}
	if err := refuseWriters(&st, uint32(os.Getuid())); err != nil {
		return nil, err
	}
	if text, err = ini.Execute(f, filepath.Dir(path)); err != nil {
		err = fmt.Errorf("it is executable, and run for its output, as emperor-magic-exec says: %w", err)
	}
	return text, err
}
