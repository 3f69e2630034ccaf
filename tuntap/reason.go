package tuntap

import "fmt"

// Reason says why a packet was dropped. It is text in JSON, also as a map's key.
type Reason uint8

// The reasons, a fixed list: each dropped packet has exactly one.
const (
	DropMalformed    Reason = iota + 1 // not a well-formed IP packet
	DropSpoofed                        // the peer is registered, and not with this source
	DropTaken                          // the source belongs to another peer
	DropUnregistered                   // the peer owns no address yet and this packet can not register one
	DropForbidden                      // an address that nobody (or somebody else) is given, a far end that the config does not name, or the host's loopback
	DropRule                           // a rule of a chain or of the peer
	DropIsolate                        // the network isolates its vassals
	DropNoRoute                        // an address of the pool that no peer has
	DropFragment                       // a fragment that can not be judged
	DropFull                           // the receiver does not read, or can not take this size
	DropRate                           // more questions for names than the peer may ask
	DropNotReady                       // the receiver's device is down, or the router does not serve yet

	reasons = iota + 1
)

// pass is the Reason of a packet that goes on.
const pass Reason = 0

var reasonNames = [reasons]string{
	DropMalformed:    "malformed",
	DropSpoofed:      "spoofed",
	DropTaken:        "taken",
	DropUnregistered: "unregistered",
	DropForbidden:    "forbidden",
	DropRule:         "rule",
	DropIsolate:      "isolate",
	DropNoRoute:      "no-route",
	DropFragment:     "fragment",
	DropFull:         "full",
	DropRate:         "rate",
	DropNotReady:     "not-ready",
}

// String returns the reason's word.
func (r Reason) String() string {
	if r > pass && r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// MarshalText returns the reason's word; an error for what is no reason.
func (r Reason) MarshalText() ([]byte, error) {
	if r == pass || r >= reasons {
		return nil, fmt.Errorf("unknown drop reason %d", uint8(r))
	}
	return []byte(reasonNames[r]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, name := range reasonNames {
		if i > 0 && name == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown drop reason %q", text)
}
