package ini

import (
	"slices"
	"strings"
)

// filters are the lists that are in force: nil is none.
type filters struct {
	black, white *Pair
}

// set begins or ends a list.
func (f *filters) set(act action, p Pair) {
	list := &f.black
	if act == actWhitelist {
		list = &f.white
	}
	*list = nil
	if !strings.HasPrefix(p.Key, "end-") {
		*list = &p
	}
}

// forbid says whether an option is forbidden, and by which line.
func (f *filters) forbid(key string) (by Pair, forbidden bool) {
	switch {
	case f.black != nil && named(f.black.Value, key):
		return *f.black, true
	case f.white != nil && !named(f.white.Value, key):
		return *f.white, true
	}
	return Pair{}, false
}

// named says whether a list has an option, in whatever case, as in uWSGI.
func named(list, key string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(list, isSpace), func(word string) bool { return strings.EqualFold(word, key) })
}
