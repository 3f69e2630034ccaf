package vassal

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
)

// Publish is a port of the host's, or a range of them, by which a vassal is
// reached: a line publish of its ini.
type Publish struct {
	Addr  netip.Addr     `json:"addr,omitzero"` // of the host; invalid: all of both families; unspecified: all of one
	First uint16         `json:"first"`         // of the host's ports
	Last  uint16         `json:"last"`
	To    uint16         `json:"to"`             // the vassal's port for First; the others follow
	Proto uint8          `json:"proto"`          // TCP or UDP
	From  []netip.Prefix `json:"from,omitempty"` // who may connect; empty: everybody
	Pos   ini.Pos        `json:"pos"`
}

// Bounds of what one vassal may publish. Each port is a descriptor of the emperor's.
const (
	maxPublish      = 256 // lines
	maxPublishPorts = 1024
	maxFrom         = 64  // of a line
	maxFromAll      = 256 // of all lines
)

const wantPublish = "want [ADDRESS:]PORT:PORT[/tcp|/udp] [from PREFIX,...], such as 8080:80"

// ParsePublish reads [ADDRESS:]PORT[-PORT][:PORT[-PORT]][/tcp|/udp] [from PREFIX[,PREFIX...]]:
// the host's port, then the vassal's, which is the same if it is left out.
func ParsePublish(text string) (Publish, error) {
	p := Publish{Proto: unix.IPPROTO_TCP}
	words := strings.Fields(strings.ReplaceAll(text, ",", " "))
	if len(words) == 0 {
		return p, errors.New(wantPublish)
	}
	ports, proto, named := strings.Cut(words[0], "/")
	switch {
	case !named || proto == "tcp":
	case proto == "udp":
		p.Proto = unix.IPPROTO_UDP
	default:
		return p, fmt.Errorf("unknown protocol %q; want tcp or udp", proto)
	}
	if err := p.parsePorts(ports); err != nil {
		return p, err
	}
	if len(words) > 1 {
		if words[1] != "from" || len(words) == 2 {
			return p, fmt.Errorf("%q: %s; of several, each has a line of its own", text, wantPublish)
		}
		for _, word := range words[2:] {
			pfx, err := parseFrom(word)
			if err != nil {
				return p, err
			}
			p.From = append(p.From, pfx)
		}
	}
	return p, p.check()
}

func (p *Publish) parsePorts(text string) error {
	rest := text
	if inner, after, ok := strings.Cut(text, "]:"); ok && strings.HasPrefix(inner, "[") {
		a, err := netip.ParseAddr(inner[1:])
		if err != nil || a.Is4() {
			return fmt.Errorf("%q is no IPv6 address", inner[1:])
		}
		p.Addr, rest = a, after
	} else if head, after, ok := strings.Cut(text, ":"); ok && strings.Contains(head, ".") {
		a, err := netip.ParseAddr(head)
		if err != nil {
			return fmt.Errorf("%q is no address", head)
		}
		p.Addr, rest = a, after
	}
	host, vassal, both := strings.Cut(rest, ":")
	if strings.Contains(vassal, ":") {
		return fmt.Errorf("%q: %s; an IPv6 address is written in brackets", text, wantPublish)
	}
	var err error
	if p.First, p.Last, err = parsePorts(host); err != nil {
		return err
	}
	if !both {
		p.To = p.First
		return nil
	}
	first, last, err := parsePorts(vassal)
	if err != nil {
		return err
	}
	if last-first != p.Last-p.First {
		return fmt.Errorf("%s are %d ports of the host and %d of the vassal; want as many of both", rest, int(p.Last-p.First)+1, int(last-first)+1)
	}
	p.To = first
	return nil
}

func parsePorts(text string) (first, last uint16, err error) {
	low, high, ranged := strings.Cut(text, "-")
	if first, err = parsePublishPort(low); err != nil || !ranged {
		return first, first, err
	}
	last, err = parsePublishPort(high)
	return first, last, err
}

func parsePublishPort(word string) (uint16, error) {
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port; %s", word, wantPublish)
	}
	return uint16(n), nil
}

func parseFrom(word string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	pfx, err := netip.ParsePrefix(word)
	switch {
	case err != nil:
		return pfx, fmt.Errorf("from %q: want an address or a prefix, such as 203.0.113.0/24", word)
	case pfx != pfx.Masked():
		return pfx, fmt.Errorf("from %s: the address has bits beyond the prefix; want %s", word, pfx.Masked())
	}
	return pfx, nil
}

// check says what no line can mean, whoever made the value.
func (p *Publish) check() error {
	switch {
	case p.First == 0 || p.Last < p.First || p.To == 0 || int(p.To)+int(p.Last-p.First) > 65535:
		return fmt.Errorf("ports %d-%d to %d: want ports from 1 to 65535, the lower one first", p.First, p.Last, p.To)
	case p.Proto != unix.IPPROTO_TCP && p.Proto != unix.IPPROTO_UDP:
		return fmt.Errorf("protocol %d: want tcp or udp", p.Proto)
	case p.Addr.IsValid() && (p.Addr.Zone() != "" || p.Addr.Is4In6() || p.Addr.IsMulticast() || p.Addr.IsLinkLocalUnicast()):
		return fmt.Errorf("a port cannot be published at %s; want an address of the host, 0.0.0.0 or [::] for all of a family, or none for all", p.Addr)
	case p.Addr.IsLoopback() && p.Addr != netip.IPv6Loopback() && p.Addr != netip.AddrFrom4([4]byte{127, 0, 0, 1}):
		return fmt.Errorf("a port can be published at 127.0.0.1 or [::1] for the host's own programs, not at %s", p.Addr)
	case p.Addr.IsLoopback() && len(p.From) > 0:
		return fmt.Errorf("only the host's own programs reach %s; leave \"from\" out", p.Addr)
	case len(p.From) > maxFrom:
		return fmt.Errorf("%d prefixes after \"from\"; at most %d are allowed", len(p.From), maxFrom)
	}
	for _, f := range p.From {
		if !f.IsValid() || f.Addr().Is4In6() || f != f.Masked() {
			return fmt.Errorf("from %s: want an address or a prefix, such as 203.0.113.0/24", f)
		}
		if p.Addr.IsValid() && p.Addr.Is4() != f.Addr().Is4() {
			return fmt.Errorf("from %s: nobody from there reaches %s, which is of the other family", f, p.Addr)
		}
	}
	return nil
}

// String writes the line as ParsePublish reads it.
func (p Publish) String() string {
	var b strings.Builder
	if p.Addr.IsValid() {
		b.WriteString(bracketed(p.Addr) + ":")
	}
	fmt.Fprintf(&b, "%s:%s/%s", portsText(p.First, p.Last), portsText(p.To, p.To+p.Last-p.First), firewall.ProtoText(p.Proto))
	for i, f := range p.From {
		b.WriteString([]string{" from ", ","}[min(i, 1)])
		if f.IsSingleIP() {
			b.WriteString(f.Addr().String())
		} else {
			b.WriteString(f.String())
		}
	}
	return b.String()
}

// Has says whether the line is about addresses of IPv6, or of IPv4: its own
// address is, or those who may connect are.
func (p Publish) Has(v6 bool) bool {
	if p.Addr.IsValid() && p.Addr.Is6() != v6 {
		return false
	}
	return len(p.From) == 0 || len(p.FromOf(v6)) > 0
}

// FromOf are those of one family who may connect.
func (p Publish) FromOf(v6 bool) (list []netip.Prefix) {
	for _, f := range p.From {
		if f.Addr().Is6() == v6 {
			list = append(list, f)
		}
	}
	return list
}

// Clashes says whether a port of the host's is in both lines.
func (p Publish) Clashes(q Publish) bool {
	if p.Proto != q.Proto || p.Last < q.First || q.Last < p.First {
		return false
	}
	every := func(a, b netip.Addr) bool {
		return !a.IsValid() || a.IsUnspecified() && (!b.IsValid() || a.Is4() == b.Is4())
	}
	return every(p.Addr, q.Addr) || every(q.Addr, p.Addr) || p.Addr == q.Addr
}

// Within says whether whoever comes by p could come by q, too: to no other
// address or port of the host's, and from nowhere else.
func (p Publish) Within(q Publish) bool {
	switch {
	case p.Proto != q.Proto || p.First < q.First || p.Last > q.Last:
		return false
	case q.Addr.IsUnspecified() && (!p.Addr.IsValid() || p.Addr.Is4() != q.Addr.Is4()):
		return false
	case q.Addr.IsValid() && !q.Addr.IsUnspecified() && p.Addr != q.Addr:
		return false
	case len(q.From) == 0:
		return true
	}
	return len(p.From) > 0 && !slices.ContainsFunc(p.From, func(f netip.Prefix) bool {
		return !slices.ContainsFunc(q.From, func(most netip.Prefix) bool { return most.Bits() <= f.Bits() && most.Contains(f.Addr()) })
	})
}

// HostPorts names the host's ports of the line, for who reads.
func (p Publish) HostPorts() string {
	text := portsText(p.First, p.Last) + "/" + firewall.ProtoText(p.Proto)
	if p.Addr.IsValid() {
		return bracketed(p.Addr) + ":" + text
	}
	return text
}

func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

func portsText(first, last uint16) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

var publishOptions = []ini.Option[Config]{{
	Name: "publish", Kind: ini.Text, Since: "0.1", Repeats: true, Set: addPublish,
	Meaning: "[ADDRESS:]PORT:PORT[/tcp|/udp] [from PREFIX,...]: make a port of the vassal's (the second) reachable at a port of the host's: at all of its addresses, or one; 127.0.0.1 is for the host's own programs. Ranges (8000-8010:9000-9010) are fine; from says who may connect",
}}

func addPublish(c *Config, p ini.Pair) error {
	one, err := ParsePublish(p.Value)
	if err != nil {
		return err
	}
	one.Pos = p.Pos
	c.Publish = append(c.Publish, one)
	return nil
}

// checkPublish says what is wrong with what the vassal publishes.
func (c *Config) checkPublish(report func(ini.Pos, error)) {
	if len(c.Publish) > maxPublish {
		report(c.Publish[maxPublish].Pos, fmt.Errorf("%d lines publish; at most %d are allowed: write neighbours as a range, such as 8000-8010:9000-9010", len(c.Publish), maxPublish))
		return
	}
	ports, from := 0, 0
	for i := range c.Publish {
		p := &c.Publish[i]
		if err := p.check(); err != nil {
			report(p.Pos, fmt.Errorf("publish: %w", err))
			continue
		}
		if ports += int(p.Last-p.First) + 1; ports > maxPublishPorts {
			report(p.Pos, fmt.Errorf("publish: more than %d ports; a vassal may have so many", maxPublishPorts))
			return
		}
		if from += len(p.From); from > maxFromAll {
			report(p.Pos, fmt.Errorf("publish: more than %d prefixes after \"from\" in all lines; write wider ones, or leave it to the host's own firewall who may come", maxFromAll))
			return
		}
		for _, q := range c.Publish[:i] {
			if p.Clashes(q) {
				report(p.Pos, fmt.Errorf("publish: %s is already published by %s", p.HostPorts(), q.Pos))
				break
			}
		}
	}
}

// SamePublish says whether two lists publish the same, wherever they are written.
func SamePublish(a, b []Publish) bool {
	key := func(list []Publish) []string {
		texts := []string{}
		for _, p := range list {
			texts = append(texts, p.String())
		}
		slices.SortFunc(texts, cmp.Compare)
		return texts
	}
	return slices.Equal(key(a), key(b))
}
