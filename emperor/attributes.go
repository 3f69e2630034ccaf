package emperor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// attributeSection is the section of a vassal's ini that is for the emperor.
const attributeSection = "emperor"

// attributeOptions name the keys of that section that count.
var attributeOptions = []ini.Option[Config]{
	{
		Name: "emperor-collect-attribute", Aliases: []string{"emperor-collect-attr"}, Kind: ini.Text, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return c.collect(p, new(string)) },
		Meaning: "NAME: a key of the section [emperor] in vassals' inis, for fiefdom status --json to show",
	},
	{
		Name: "emperor-wrapper-attr", Kind: ini.Text, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { return c.collect(p, &c.Wrappers.Attr) },
		Meaning: "NAME: the key of [emperor] in a vassal's ini that names its program in place of emperor-wrapper's, under the same user",
	},
	{
		Name: "emperor-chdir-attr", Kind: ini.Text, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { return c.collect(p, &c.ChdirAttr) },
		Meaning: "NAME: the key of [emperor] in a vassal's ini that names the folder in which its app begins, if the ini has no chdir",
	},
}

// collect has a key count, and notes in use what for.
func (c *Config) collect(p ini.Pair, use *string) error {
	if p.Value == "" {
		return errors.New("it is empty; write the name of a key in vassals' [emperor]")
	}
	*use = p.Value
	if !slices.Contains(c.Common.Attributes, p.Value) {
		c.Common.Attributes = append(c.Common.Attributes, p.Value)
	}
	return nil
}

// readAttributes reads the section [emperor] of a vassal's own ini, whose text
// was read already, in the dialect and by the rules of the ini itself (o). What
// the emperor's ini and environment give to all vassals is not in it.
func (c *Common) readAttributes(x *expansion, own, dir string, text []byte, o ini.Options) {
	if len(c.Attributes) == 0 || x.Config == nil || !bytes.Contains(text, []byte("["+attributeSection+"]")) {
		return
	}
	read := o.ReadFile
	o.ReadFile = func(path string) ([]byte, error) {
		if path == own {
			return text, nil
		}
		return read(path)
	}
	o.Sections, o.Before, o.After, o.Environ = []string{attributeSection}, nil, nil, nil
	got, err := ini.Load(filepath.Base(own), o)
	var errs ini.Errors
	switch {
	case errors.As(err, &errs):
	case err != nil:
		errs = ini.Errors{{Pos: ini.Pos{File: filepath.Base(own)}, Message: err.Error()}}
	case len(got.Pairs) > 0:
		errs = got.Warnings
	}
	placeAll(dir, errs)
	for _, p := range got.Pairs {
		place(dir, &p.Pos)
		x.Config.Attributes = append(x.Config.Attributes, p)
	}
	c.onlyNamed(x.Config)
	x.Errors = append(append(x.Errors, errs...), x.Config.CheckAttributes()...)
}

// onlyNamed takes away the attributes that the emperor does not ask for.
func (c *Common) onlyNamed(v *vassal.Config) {
	v.Attributes = slices.DeleteFunc(v.Attributes, func(p ini.Pair) bool { return !slices.Contains(c.Attributes, p.Key) })
}

// heed has a start do what the ini's attributes are used for. Both are done in
// the jail, with the app's rights and no others, as if the ini had asked by
// options of its own.
func (e *Emperor) heed(r *resolved, c *vassal.Config) *ini.Error {
	if name := e.Config.ChdirAttr; name != "" {
		dir, at := c.Attribute(name)
		if dir != "" && !filepath.IsAbs(dir) {
			return &ini.Error{Pos: at, Message: fmt.Sprintf("%s = %s: want an absolute path; the app begins there (emperor-chdir-attr)", name, dir)}
		}
		r.plan.Chdir = cmp.Or(r.plan.Chdir, dir)
	}
	return nil
}

// attributes are those of the vassal's newest good ini, by key, in the ini's order.
func (v *member) attributes() map[string][]string {
	if v.config == nil || len(v.config.Attributes) == 0 {
		return nil
	}
	all := map[string][]string{}
	for _, a := range v.config.Attributes {
		all[a.Key] = append(all[a.Key], a.Value)
	}
	return all
}
