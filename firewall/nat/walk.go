package nat

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/shlex"
)

// table is one of iptables' tables as "iptables -S" prints it.
type table struct {
	policy map[string]string // of the kernel's chains
	chains map[string][]parsedRule
}

// parsedRule is a rule as far as we understand it.
type parsedRule struct {
	line    string
	matches []match
	target  string // "" for a rule that only counts
	jumps   bool   // by -g: a chain that ends without a decision does not come back
}

type match struct {
	option, value string
	not           bool
}

// probe is a packet of a connection as rules see it, its first one unless state
// says otherwise. What may be anybody's is a prefix.
type probe struct {
	in, out  string
	src, dst netip.Prefix
	proto    string
	port     uint16 // of the destination
	asked    uint16 // the one before DNAT
	dnat     bool
	state    string // conntrack's; "" is NEW
}

// fits is how far a rule matches: a source or a match that we do not know may.
type fits int

const (
	no fits = iota
	perhaps
	yes
)

func parseTable(lines []string) *table {
	t := &table{policy: map[string]string{}, chains: map[string][]parsedRule{}}
	for _, line := range lines {
		line = strings.TrimSpace(line)
		words, err := shlex.Split(line)
		if err != nil || len(words) < 2 {
			continue
		}
		chain := words[1]
		switch words[0] {
		case "-P":
			if len(words) > 2 {
				t.policy[chain] = words[2]
			}
			t.chains[chain] = nil
		case "-N":
			t.chains[chain] = nil
		case "-A":
			t.chains[chain] = append(t.chains[chain], parseRule(line, words[2:]))
		}
	}
	return t
}

// parseRule reads the words after the chain's name.
func parseRule(line string, words []string) parsedRule {
	r := parsedRule{line: line}
	not := false
	for i := 0; i < len(words); i++ {
		option, value := words[i], ""
		if option == "!" {
			not = true
			continue
		}
		if i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") && words[i+1] != "!" {
			i++
			value = words[i]
		}
		if option == "--tcp-flags" && i+1 < len(words) { // which, and those that are set
			i++
			value += " " + words[i]
		}
		switch option {
		case "-j", "-g":
			r.target, r.jumps = value, option == "-g"
			return r // what follows belongs to the target
		case "-m", "--comment", "--":
		default:
			r.matches = append(r.matches, match{option, value, not})
		}
		not = false
	}
	return r
}

func (r *parsedRule) fits(p *probe) fits {
	all := yes
	for _, m := range r.matches {
		f := m.fits(p)
		if m.not {
			f = yes - f
		}
		all = min(all, f)
	}
	return all
}

func (m *match) fits(p *probe) fits {
	switch m.option {
	case "-i":
		return known(sameDevice(m.value, p.in))
	case "-o":
		return known(sameDevice(m.value, p.out))
	case "-s":
		return within(m.value, p.src)
	case "-d":
		return within(m.value, p.dst)
	case "-p":
		return known(m.value == p.proto || m.value == "all")
	case "--dport", "--dports":
		return known(hasPort(m.value, p.port))
	case "--ctorigdstport":
		return known(hasPort(m.value, p.asked))
	case "--ctstate", "--state":
		states := strings.Split(m.value, ",")
		return known(slices.Contains(states, cmp.Or(p.state, "NEW")) || p.dnat && slices.Contains(states, "DNAT"))
	case "--ctstatus":
		if slices.Contains(strings.Split(m.value, ","), "DNAT") {
			return known(p.dnat)
		}
	case "--dst-type":
		return known(m.value == "LOCAL" == (p.out == ""))
	case "--tcp-flags":
		return known(strings.HasSuffix(m.value, " SYN"))
	case "--icmp-type", "--icmpv6-type": // not what is published
		return no
	}
	return perhaps
}

func known(b bool) fits {
	if b {
		return yes
	}
	return no
}

func sameDevice(pattern, device string) bool {
	if start, ok := strings.CutSuffix(pattern, "+"); ok {
		return strings.HasPrefix(device, start)
	}
	return pattern == device
}

func within(value string, of netip.Prefix) fits {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return perhaps
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case !p.Overlaps(of):
		return no
	case p.Bits() <= of.Bits():
		return yes
	}
	return perhaps
}

// hasPort reads 80, 80:90 and lists of them.
func hasPort(value string, port uint16) bool {
	for part := range strings.SplitSeq(value, ",") {
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err1 == nil && err2 == nil && uint64(port) >= first && uint64(port) <= last {
			return true
		}
	}
	return false
}

// decision is what becomes of a probe.
type decision struct {
	target string   // ACCEPT, DROP, …
	rule   string   // which said so, or the policy
	unless []string // rules before it that may say otherwise for some
	passed int      // rules that were looked at
}

const (
	// maxDepth is of chains; the kernel has no loops, but a listing may be of
	// two moments.
	maxDepth = 64
	// maxPassed bounds what chains that lead to many others cost; beyond it
	// there is no decision.
	maxPassed = 1_000_000
)

// walk follows a probe from one of the kernel's chains to its end.
func (t *table) walk(chain string, p *probe) decision {
	var d decision
	if t.follow(chain, p, &d, yes, maxDepth) == ended {
		return d
	}
	d.target, d.rule = t.policy[chain], "-P "+chain+" "+t.policy[chain]
	return d
}

// way is how a chain ends.
type way int

const (
	back  way = iota // the rule after the jump is next
	ended            // the packet's fate is decided
)

// follow goes through a chain. What is in it for some only decides nothing, but
// is remembered.
func (t *table) follow(chain string, p *probe, d *decision, sure fits, depth int) way {
	if depth == 0 {
		return back
	}
	for _, r := range t.chains[chain] {
		if d.passed++; d.passed > maxPassed {
			return ended
		}
		f := min(r.fits(p), sure)
		if f == no || r.target == "" {
			continue
		}
		_, ours := t.chains[r.target]
		switch {
		case r.target == "RETURN" && f == yes:
			return back
		case ours:
			w := t.follow(r.target, p, d, f, depth-1)
			if f == yes && (w == ended || r.jumps) {
				return w
			}
		case !slices.Contains(endings, r.target):
		case f == yes:
			d.target, d.rule = r.target, r.line
			return ended
		default:
			d.unless = append(d.unless, r.line)
		}
	}
	return back
}

// endings are the targets that decide; others log, mark or count.
var endings = []string{"ACCEPT", "DROP", "REJECT", "QUEUE", "NFQUEUE", "DNAT", "REDIRECT"}
