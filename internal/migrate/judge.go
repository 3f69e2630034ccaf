package migrate

// Fate is what becomes of an option. The words are those of the JSON.
type Fate string

// The fates. Only Missing and Refused need a hand, and Unknown where it is
// an error.
const (
	Works    Fate = "works"    // as it is
	Differs  Fate = "differs"  // it works, with a difference on purpose
	Needless Fate = "needless" // it does nothing here, and nobody needs it
	Missing  Fate = "missing"  // it is not there
	Refused  Fate = "refused"  // the option is there, but not with this value
	Unknown  Fate = "unknown"  // neither uWSGI nor we know it
)

// Fates are all of them, in the order in which summaries count them.
var Fates = []Fate{Works, Differs, Needless, Missing, Refused, Unknown}

// Tables say whose an option is. They are the tables that parse the files, so
// that what these honour works here without being said again.
type Tables struct {
	Dialect  func(name string) bool            // the dialect's own: include, if-env, set, …
	Honoured func(side Side, name string) bool // it does something in such a file
	Needless func(name string) bool            // it alone makes no app server of a vassal
	Known    func(name string) bool            // ours or uWSGI's
}

// Option is one option of a file, as far as a judgement needs it.
type Option struct {
	Name  string
	Side  Side
	Given bool // the uwsgi that is the vassal's app gets it
}

const (
	givenToApp = "the uwsgi that is the app gets it"
	notYet     = "there is no such option yet"
	ofNoApp    = "the app is a command, which has no use for it"
	ofEmperors = "the emperor itself runs no app"
	ofAnApp    = "the emperor itself runs no app; give what it is for a vassal's ini of its own"
)

// Judge says what becomes of an option, and what its user has to know.
func (t Tables) Judge(o Option) (Fate, string) {
	r, special := rowOf()[sided{o.Side, o.Name}]
	switch {
	case t.Dialect(o.Name):
		return Works, ""
	case t.Honoured(o.Side, o.Name) && r.differs != "":
		return Differs, r.differs
	case t.Honoured(o.Side, o.Name):
		return Works, ""
	case o.Given && t.Known(o.Name) && (r.app || !special):
		return Works, givenToApp
	case r.needless != "":
		return Needless, r.needless
	case r.missing != "":
		return Missing, r.missing
	case special && !t.Needless(o.Name):
		return Missing, notYet
	case !t.Known(o.Name):
		return Unknown, ""
	case o.Side == Vassal:
		return Needless, ofNoApp
	case t.Needless(o.Name):
		return Needless, ofEmperors
	}
	return Missing, ofAnApp
}
