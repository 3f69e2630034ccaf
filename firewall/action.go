package firewall

import "fmt"

// Action is what a rule says about the packets that it matches.
type Action uint8

// The actions. Reject is Deny with an answer: ICMP administratively
// prohibited, or a TCP reset.
const (
	Allow Action = iota
	Deny
	Reject
)

// String returns the word of the rule's text: allow, deny or reject.
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Reject:
		return "reject"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// ParseAction reads the word that String writes. Anything else is an error:
// uWSGI takes every word but "deny" for allow, and "dney" then opens the door.
func ParseAction(s string) (Action, error) {
	for _, a := range []Action{Allow, Deny, Reject} {
		if s == a.String() {
			return a, nil
		}
	}
	return Deny, fmt.Errorf("unknown action %q; want allow, deny or reject", s)
}

// MarshalText writes the action's word, for JSON.
func (a Action) MarshalText() ([]byte, error) {
	if a > Reject {
		return nil, fmt.Errorf("action %d has no name", uint8(a))
	}
	return []byte(a.String()), nil
}

// UnmarshalText is ParseAction.
func (a *Action) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAction(string(text))
	return err
}

// Direction is seen from the vassal: Out is from it towards the router, In is
// from the router towards it.
type Direction uint8

// The directions.
const (
	Out Direction = iota
	In
)

// String returns out or in.
func (d Direction) String() string {
	switch d {
	case Out:
		return "out"
	case In:
		return "in"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// ParseDirection reads the word that String writes.
func ParseDirection(s string) (Direction, error) {
	for _, d := range []Direction{Out, In} {
		if s == d.String() {
			return d, nil
		}
	}
	return Out, fmt.Errorf("unknown direction %q; want in or out", s)
}

// MarshalText writes the direction's word, for JSON.
func (d Direction) MarshalText() ([]byte, error) {
	if d > In {
		return nil, fmt.Errorf("direction %d has no name", uint8(d))
	}
	return []byte(d.String()), nil
}

// UnmarshalText is ParseDirection.
func (d *Direction) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDirection(string(text))
	return err
}
