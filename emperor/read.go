package emperor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

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
	first := true // the first file that is read as the vassal's is its own
	own := dir + "/" + base
	before, after, environ := c.beside(f.Name)
	got, err := ini.Load(name, ini.Options{
		Dir: dir, IsOption: vassal.Known, Before: before, After: after, Environ: environ,
		LookupEnv: func(name string) (string, bool) { return lookupIn(environ, name) },
		ReadFile: func(path string) (text []byte, err error) {
			defer func() { x.Unrest = x.Unrest || ini.IsBeingWritten(err) }()
			switch {
			case first && path == own:
				first = false
				return ini.ReadFile(path, check)
			case c.names(path, dir):
				return readCommon(path, uid)
			case uid == 0:
				return ini.ReadFile(path, func(st *unix.Stat_t) error { return refuseWriters(st, uid) })
			}
			return ini.ReadFile(path, nil)
		},
	})
	if err != nil {
		if !errors.As(err, &x.Errors) {
			x.Errors = ini.Errors{{Pos: ini.Pos{File: base}, Message: err.Error()}}
		}
		for i := range x.Errors {
			place(dir, &x.Errors[i].Pos)
		}
		return x
	}
	got.Name = f.Path
	for i := range got.Pairs {
		place(dir, &got.Pairs[i].Pos)
	}
	for i := range got.Warnings {
		place(dir, &got.Warnings[i].Pos)
	}
	config, errs := vassal.Parse(f.Name, got)
	x.Config, x.Errors = config, append(got.Warnings, errs...)
	return x
}

// place makes a place's file independent of the folder; options of the
// environment have none.
func place(dir string, p *ini.Pos) {
	if p.File != "" && !filepath.IsAbs(p.File) && !strings.HasPrefix(p.File, "$") {
		p.File = filepath.Join(dir, p.File)
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
