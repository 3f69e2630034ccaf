package migrate

import "sync"

// Side is whose file an option is in: the same name can mean two things.
type Side int

// The sides.
const (
	both Side = iota // of rows alone
	Emperor
	Vassal
)

// row is one option of uWSGI, or some that share their fate. Of its texts those
// are used that fit what the option tables say: differs if they honour the
// option, else needless or missing. A row with neither is not there yet.
type row struct {
	names []string
	side  Side
	app   bool // a uwsgi that is a vassal's app takes it as its own

	differs  string // what is other than in uWSGI, on purpose
	needless string // why nobody needs it here
	missing  string // the way out
}

// groups are all rows, in the order of the page.
var groups = []struct {
	title string
	rows  []row
}{
	{"The emperor and its vassals", emperorRows},
	{"The emperor's own process, in its file", processRows},
	{"The router, in the emperor's file", routerRows},
	{"The jail, in a vassal's file", jailRows},
	{"Hooks, in both", hookRows()},
	{"The app, in a vassal's file", appRows},
}

type sided struct {
	side Side
	name string
}

// rowOf finds the row of an option on a side; the zero row is of one that has
// none.
var rowOf = sync.OnceValue(func() map[sided]row {
	m := map[sided]row{}
	for _, g := range groups {
		for _, r := range g.rows {
			for _, name := range r.names {
				for _, side := range r.sides() {
					m[sided{side, name}] = r
				}
			}
		}
	}
	return m
})

func (r row) sides() []Side {
	if r.side == both {
		return []Side{Emperor, Vassal}
	}
	return []Side{r.side}
}

// of makes the list of names that a row is about.
func of(names ...string) []string { return names }

// Names are the options of all rows.
func Names() []string {
	var names []string
	for _, g := range groups {
		for _, r := range g.rows {
			names = append(names, r.names...)
		}
	}
	return names
}
