package emperor

import (
	"cmp"
	"errors"
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Wrappers are programs that stand for the uwsgi of vassals with app-server
// options: they get its arguments, in its place, jail and rights. A vassal with
// a command has none.
type Wrappers struct {
	Wrapper  string   // instead of uwsgi
	Override []string // tried before it
	Fallback []string // tried after it
	Attr     string   // the attribute of a vassal that names its own instead of Wrapper; empty: none
}

// of are those of one vassal.
func (w Wrappers) of(c *vassal.Config) *Wrappers {
	if w.Attr != "" {
		own, _ := c.Attribute(w.Attr)
		w.Wrapper = cmp.Or(own, w.Wrapper)
	}
	return &w
}

// wrapperOptions are the options that fill Wrappers.
var wrapperOptions = []ini.Option[Config]{
	{
		Name: "emperor-wrapper", Kind: ini.Path, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { c.Wrappers.Wrapper = p.Value; return nil },
		Meaning: "a program that is started instead of vassals' uwsgi, with its arguments, in the jail and under the app's user; vassals with a command are not wrapped",
	},
	{
		Name: "emperor-wrapper-override", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addProgram(&c.Wrappers.Override, p) },
		Meaning: "a program that is tried before emperor-wrapper, or before uwsgi",
	},
	{
		Name: "emperor-wrapper-fallback", Kind: ini.Path, Since: "0.1", Repeats: true,
		Set:     func(c *Config, p ini.Pair) error { return addProgram(&c.Wrappers.Fallback, p) },
		Meaning: "a program that is tried when emperor-wrapper, or uwsgi, cannot be started",
	},
}

func addProgram(to *[]string, p ini.Pair) error {
	if p.Value == "" {
		return errors.New("it is empty; leave it out")
	}
	*to = append(*to, p.Value)
	return nil
}

// programs are what is tried, in this order, to start a uwsgi; nil: itself.
func (w *Wrappers) programs(uwsgi string) []string {
	if w.Wrapper == "" && len(w.Override) == 0 && len(w.Fallback) == 0 {
		return nil
	}
	return slices.Concat(w.Override, []string{cmp.Or(w.Wrapper, uwsgi)}, w.Fallback)
}
