package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Common is what an emperor gives to all its vassals: options around those of
// each vassal's own ini, in the order of the command lines that uWSGI's emperor
// makes. It becomes part of each vassal: files are read under the owner of the
// vassal's ini, who has what is in them by %(NAME).
type Common struct {
	User          []ini.Pair `json:"user,omitempty"` // the emperor's own uid and gid; none in tyrant mode
	InheritBefore []ini.Pair `json:"inherit_before,omitempty"`
	IncludeBefore []ini.Pair `json:"include_before,omitempty"`
	Set           []ini.Pair `json:"set,omitempty"`
	Inherit       []ini.Pair `json:"inherit,omitempty"`
	Include       []ini.Pair `json:"include,omitempty"`
	Environ       []string   `json:"environ,omitempty"` // UWSGI_NAME=value, options before all others
	MagicExec     bool       `json:"magic_exec,omitempty"`
	Attributes    []string   `json:"attributes,omitempty"` // keys of vassals' [emperor] that count
}

// commonOptions are the options that fill Common.
var commonOptions = []ini.Option[Config]{
	{
		Name: "uid", Aliases: []string{"immediate-uid"}, Kind: ini.Text, Since: "0.1", Set: addUser("uid"),
		Meaning: "the user of every vassal whose ini has no uid; the emperor itself stays root. In tyrant mode it does nothing",
	},
	{
		Name: "gid", Aliases: []string{"immediate-gid"}, Kind: ini.Text, Since: "0.1", Set: addUser("gid"),
		Meaning: "the group of every vassal whose ini has no gid. In tyrant mode it does nothing",
	},
	{
		Name: "vassals-inherit-before", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addCommon(&c.Common.InheritBefore, "inherit", p) },
		Meaning: "an ini that every vassal inherits, before those of vassals-inherit",
	},
	{
		Name: "vassals-include-before", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addCommon(&c.Common.IncludeBefore, "include", p) },
		Meaning: "an ini that every vassal includes before its own",
	},
	{
		Name: "vassal-set", Aliases: []string{"vassals-set"}, Kind: ini.Text, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addCommon(&c.Common.Set, "set", p) },
		Meaning: "NAME=VALUE: an option or placeholder of every vassal, before those of its ini; write %%n for the vassal's name",
	},
	{
		Name: "emperor-magic-exec", Kind: ini.Bool, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { c.Common.MagicExec = ini.ParseBool(p.Value); return nil },
		Meaning: "an executable ini is run, under its owner, for 10 s at most, and what it writes is the ini; never in tyrant mode",
	},
	{
		Name: "vassals-inherit", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addCommon(&c.Common.Inherit, "inherit", p) },
		Meaning: "an ini that every vassal inherits: after all others, without $(), @() and %() in it",
	},
	{
		Name: "vassals-include", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addCommon(&c.Common.Include, "include", p) },
		Meaning: "an ini that every vassal includes after its own; %n in it is the vassal's name, other magic variables are the file's",
	},
}

// addCommon keeps an option for the vassals. Its place is that in the
// emperor's ini, wherever the vassal is.
func addCommon(to *[]ini.Pair, key string, p ini.Pair) error {
	if p.Value == "" {
		return errors.New("it is empty; leave it out")
	}
	if abs, err := filepath.Abs(p.Pos.File); err == nil && p.Pos.File != "" {
		p.Pos.File = abs
	}
	*to = append(*to, ini.Pair{Key: key, Value: p.Value, Pos: p.Pos})
	return nil
}

// addUser keeps the emperor's uid or gid: with uWSGI these are his vassals' too,
// since he has given up root before he starts them.
func addUser(name string) func(*Config, ini.Pair) error {
	return func(c *Config, p ini.Pair) error {
		if p.Value == "" {
			return errors.New("it is empty; leave it out")
		}
		p.Value = name + "=" + p.Value
		return addCommon(&c.Common.User, "set", p)
	}
}

// vassalEnviron are the options that UWSGI_VASSAL_NAME=value variables of the
// emperor's environment are for vassals.
func vassalEnviron(environ []string) []string {
	var options []string
	for _, variable := range environ {
		if option, ok := strings.CutPrefix(variable, "UWSGI_VASSAL_"); ok {
			options = append(options, "UWSGI_"+option)
		}
	}
	return options
}

// forVassal puts the vassal's name into what is not in a file.
func forVassal(value, name string) string { return strings.ReplaceAll(value, "%n", name) }

// beside are the options around the ini of a vassal.
func (c *Common) beside(name string) (before, after []ini.Pair, environ []string) {
	before = slices.Concat(c.User, c.InheritBefore, c.IncludeBefore, c.Set)
	for i := range before {
		if before[i].Key == "set" {
			before[i].Value = forVassal(before[i].Value, name)
		}
	}
	for _, option := range c.Environ {
		environ = append(environ, forVassal(option, name))
	}
	return before, slices.Concat(c.Inherit, c.Include), environ
}

// names says whether the emperor's options name a file; dir is the vassal's.
func (c *Common) names(path, dir string) bool {
	return slices.ContainsFunc(slices.Concat(c.InheritBefore, c.IncludeBefore, c.Inherit, c.Include), func(p ini.Pair) bool {
		file, ok := ini.FileOf(p.Value)
		if !filepath.IsAbs(file) {
			file = dir + "/" + file
		}
		return ok && filepath.Clean(file) == filepath.Clean(path)
	})
}

// refuseWriters refuses a file that others than root and uid can write, where
// its text would act with more than their rights: a value that is read may
// run commands, as the whole of an ini may.
func refuseWriters(st *unix.Stat_t, uid uint32) error {
	const byOthers = 0o002
	switch {
	case st.Uid != 0 && st.Uid != uid:
		return fmt.Errorf("it belongs to uid %d, and what it says would be done with the rights of uid %d; give it to root, or the vassal's ini to uid %d", st.Uid, uid, st.Uid)
	case st.Mode&byOthers != 0:
		return fmt.Errorf("everybody may write it (mode %03o), and what it says would be done with the rights of uid %d; chmod o-w", st.Mode&0o777, uid)
	}
	return nil
}

// readCommon reads a file that the emperor's options name.
func readCommon(path string, uid uint32) ([]byte, error) {
	text, err := ini.ReadFile(path, func(st *unix.Stat_t) error { return refuseWriters(st, uid) })
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("permission denied for uid %d, the owner of the vassal's ini, who may use all that is in it; let him read it, or take out what is not for him", uid)
	}
	return text, err
}
