package emperor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"fiefdom/vassal"
)

// PublishedStatus is a port of the host's, or a range of them, that leads to a
// vassal, as "fiefdom ps --json" shows it. It is of one family.
type PublishedStatus struct {
	Address netip.Addr     `json:"address"` // of the host; 0.0.0.0 and :: are all of that family
	Port    uint16         `json:"port"`
	Last    uint16         `json:"last"` // of the range; a single port is its own last
	Proto   string         `json:"proto"`
	To      netip.AddrPort `json:"to"`             // where Port leads; the others follow
	From    []netip.Prefix `json:"from,omitempty"` // who may come; empty: everybody
}

// publishedStatus is what is published of a jail now: not yet what is being put in
// force.
func (e *Emperor) publishedStatus(jail *vassal.Jail) []PublishedStatus {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	b := e.ports.of[jail.Name]
	if b == nil || b.jail != jail {
		return nil
	}
	return publishedTo(b.have)
}

func publishedTo(list []Published) (all []PublishedStatus) {
	for _, p := range list {
		all = append(all, PublishedStatus{Address: p.Host, Port: p.First, Last: p.Last, Proto: protoText(p.Proto), To: p.To, From: p.From})
	}
	return all
}

// PublishedTexts names published ports as an ini does, such as 8080:80. Those of
// both families that are the same are one.
func PublishedTexts(all []PublishedStatus) []string {
	texts := []string{}
	for _, p := range all {
		if text := p.text(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// PublishedCount is how many ports of the host are published; one of both
// families counts once.
func PublishedCount(all []PublishedStatus) (n int) {
	seen := map[string]bool{}
	for _, p := range all {
		if text := p.text(); !seen[text] {
			seen[text] = true
			n += int(p.Last-p.Port) + 1
		}
	}
	return n
}

func (p PublishedStatus) text() string {
	text := portRange(p.Port, p.Last)
	if !p.Address.IsUnspecified() {
		text = p.Address.String() + ":" + text
		if p.Address.Is6() {
			text = fmt.Sprintf("[%s]:%s", p.Address, portRange(p.Port, p.Last))
		}
	}
	if p.To.Port() != p.Port {
		text += ":" + portRange(p.To.Port(), p.To.Port()+p.Last-p.Port)
	}
	if p.Proto != "tcp" {
		text += "/" + p.Proto
	}
	return text
}

func portRange(first, last uint16) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}
