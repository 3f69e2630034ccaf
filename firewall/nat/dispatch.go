package nat

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A new connection is compared with a chain's rules one by one. So that there
// are some tens of them at most, however much is published, rules hang in a
// tree of chains that branches by four bits of the port at a time.
const (
	leafRules = 16 // that a chain may have before it branches
	portBits  = 16
	branch    = 4
	// fewSources may come to a port by rules beside others'; more are in a chain of
	// their own, so that a long list costs those alone who ask for that port.
	fewSources = 2
)

const (
	// maxBuckets is how many chains their names are enough for: a digit and two
	// digits or letters. "ost" of "-post" is none.
	maxBuckets = 10 * 36 * 36
	// spare are the chains that may be missing yet on the levels above one that branches.
	spare = (portBits/branch + 1) << branch
)

// dispatcher makes the chains that what is published is found by.
type dispatcher struct {
	base   string
	chains []chain
}

// tree returns the rules that lead to those of the list, and makes the chains
// below them. Verb is how: -g if nothing that comes after could match, else -j.
func (d *dispatcher) tree(list []Published, verb string) (rules []string) {
	if countRules(list) <= leafRules {
		return d.leaf(list)
	}
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		part := slices.DeleteFunc(slices.Clone(list), func(p Published) bool { return p.Proto != proto })
		if len(part) > 0 {
			rules = append(rules, fmt.Sprintf("-p %s %s %s", part[0].protocol(), verb, d.bucket(part, portBits)))
		}
	}
	return rules
}

// bucket makes a chain for rules of one protocol whose ports differ in the
// lowest bits at most, and returns its name.
func (d *dispatcher) bucket(list []Published, bits int) string {
	name := bucketName(d.base, len(d.chains))
	d.chains = append(d.chains, chain{table: "nat", name: name})
	i := len(d.chains) - 1
	var rules []string
	if countRules(list) > leafRules && bits > 0 && len(d.chains) < maxBuckets-spare {
		rules = d.branches(list, bits-branch)
	} else {
		rules = d.leaf(list)
	}
	d.chains[i].rules = rules
	return name
}

// branches sorts a list into chains of their own by the part of the port above
// bits. Ranges that are of several are looked at before.
func (d *dispatcher) branches(list []Published, bits int) (rules []string) {
	parts := map[uint16][]Published{}
	var wide []Published
	for _, p := range list {
		if p.First>>bits != p.Last>>bits {
			wide = append(wide, p)
			continue
		}
		parts[p.First>>bits] = append(parts[p.First>>bits], p)
	}
	rules = d.leaf(wide)
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		first := key << bits
		last := first + (1<<bits - 1)
		rules = append(rules, fmt.Sprintf("-p %s -m %[1]s --dport %s -g %s", parts[key][0].protocol(), portRange(first, last), d.bucket(parts[key], bits)))
	}
	return rules
}

// leaf lists the rules themselves; those for one address of the host come
// before those for all.
func (d *dispatcher) leaf(list []Published) (rules []string) {
	sorted := slices.SortedStableFunc(slices.Values(list), func(a, b Published) int {
		if a.Host.IsUnspecified() != b.Host.IsUnspecified() {
			if a.Host.IsUnspecified() {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host))
	})
	for _, p := range sorted {
		if len(p.From) <= fewSources || len(d.chains) >= maxBuckets-spare {
			rules = append(rules, p.rules()...)
			continue
		}
		name := bucketName(d.base, len(d.chains))
		d.chains = append(d.chains, chain{table: "nat", name: name, rules: p.rules()})
		rules = append(rules, p.matches()+" -j "+name)
	}
	return rules
}

// countRules is how many rules of a leaf a packet would be compared with.
func countRules(list []Published) (n int) {
	for _, p := range list {
		if n++; len(p.From) == fewSources {
			n++
		}
	}
	return n
}

func bucketName(base string, n int) string {
	return fmt.Sprintf("%s-p%03s", base, strconv.FormatInt(int64(n), 36))
}

// isBucket reports whether a chain is one of the instance's tree.
func isBucket(base, name string) bool {
	s, ok := strings.CutPrefix(name, base+"-p")
	return ok && len(s) == 3 && s[0] <= '9' && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
