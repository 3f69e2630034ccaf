package ini

import "fmt"

// Pos is the place of an option in a file. An option of the environment has
// its variable for a file ("$UWSGI_UID"). The zero Pos means that it was not
// written anywhere, as a default.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// String is "file:line", as errors and logs print it.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Pair is one option after expansion. Repeated keys are repeated pairs, in
// the order in which they were written.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Pos   Pos    `json:"pos"`
	Made  bool   `json:"made,omitempty"` // by an option that declare-option declared; uwsgi --show-config does not list it
}

// Error is one thing wrong with a file: where, and a sentence that says what,
// why and the way out.
type Error struct {
	Pos     Pos    `json:"pos"`
	Message string `json:"message"`
	Warning bool   `json:"warning,omitempty"`
}

// Error is "file:line: message".
func (e Error) Error() string {
	if e.Pos.File == "" {
		return e.Message
	}
	return e.Pos.String() + ": " + e.Message
}

// Errors are all the things wrong with a file, in its order; those that do no
// harm are warnings. Test it with Failed, not with nil.
type Errors []Error

// Kind says what a value means. It is printed by "fiefdom options" and used by
// the reference page; the Set function of the option does the checking.
type Kind string

// The kinds of values.
const (
	Text     Kind = "text"
	Bool     Kind = "bool"     // true unless "false", "off", "no" or "0", as in uWSGI
	Int      Kind = "int"      // a whole number
	Duration Kind = "duration" // seconds ("10") or with a unit ("500ms", "2m")
	Path     Kind = "path"
	List     Kind = "list" // separated by commas
	Rule     Kind = "rule" // a firewall rule
	Address  Kind = "address"
	Command  Kind = "command"
	Action   Kind = "action" // a hook's action
)

// Option declares one option of a package beside the struct T that holds it.
// Set stores the value and returns an error that says what is wrong with it,
// without the place, which Decode adds. It is called for every occurrence, in
// order. An option without Set is only documented.
type Option[T any] struct {
	Name    string
	Aliases []string
	Kind    Kind
	Meaning string // one sentence, without a full stop
	Since   string
	Repeats bool // every occurrence counts; otherwise the last one wins
	Set     func(*T, Pair) error
}
