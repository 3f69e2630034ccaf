package vassal

import (
	"fmt"

	"fiefdom/internal/ini"
)

// Bounds of what an ini tells the emperor: each start and each status carries it.
const (
	maxAttributes = 100
	maxAttribute  = maxPath // bytes of a value
)

// CheckAttributes reports attributes that no emperor keeps.
func (c *Config) CheckAttributes() (errs ini.Errors) {
	for i, a := range c.Attributes {
		switch {
		case i == maxAttributes:
			return append(errs, ini.Error{Pos: a.Pos, Message: fmt.Sprintf("%d attributes for the emperor; at most %d are taken", len(c.Attributes), maxAttributes)})
		case len(a.Value) > maxAttribute || hasNUL(a.Value):
			errs = append(errs, ini.Error{Pos: a.Pos, Message: fmt.Sprintf("attribute %.100q: want at most %d bytes, without NUL", a.Key, maxAttribute)})
		}
	}
	return errs
}

// Attribute is what the ini says of itself under a name, the first time; empty: nothing.
func (c *Config) Attribute(name string) (value string, at ini.Pos) {
	for _, a := range c.Attributes {
		if a.Key == name {
			return a.Value, a.Pos
		}
	}
	return "", ini.Pos{}
}
