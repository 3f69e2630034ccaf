package emperor

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// bounds are what an owner's inis may ask for at most. What is not said is
// bounded by tyrant mode alone.
type bounds struct {
	owner string                  // his name
	said  map[string][]policyLine // by key

	names      []string // patterns of vassals' names
	vassals    int
	networks   []string
	devices    int
	deviceName []string // patterns
	addresses  []netip.Prefix
	namespaces uintptr // CLONE_NEW…
	publish    []vassal.Publish
	ports      int
	resources  vassal.Resources

	confine  vassal.Level // the widest
	writable []placeBound
	binds    []placeBound
	roots    []placeBound
	listen   []uint16
}

// policyLine is a line of a policy.
type policyLine struct {
	ini.Pair
	section string
}

// String is the line with its place, for who is bounded by it.
func (l policyLine) String() string {
	return fmt.Sprintf("%s: %s = %s in [%s]", l.Pos, l.Key, l.Value, l.section)
}

// says whether the policy has the key for this owner; nil says nothing.
func (b *bounds) says(key string) bool { return b != nil && len(b.said[key]) > 0 }

// lines are those that count for the owner, by their keys.
func (b *bounds) lines() (all []policyLine) {
	if b == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(b.said)) {
		all = append(all, b.said[key]...)
	}
	return all
}

// Words that stand for a whole bound.
const (
	boundAny  = "any"  // as without a policy
	boundNone = "none" // nothing at all
)

// PolicyOptions are the options of a policy. Where an option of a vassal's ini
// is bounded it has that one's name.
var PolicyOptions = slices.Concat([]ini.Option[bounds]{
	{
		Name: "vassals", Kind: ini.Int, Since: "0.1", Set: setCount(func(b *bounds) *int { return &b.vassals }, 1_000_000),
		Meaning: "how many vassals an owner has at most",
	},
	{
		Name: "vassal-names", Kind: ini.List, Since: "0.1", Set: setPatterns(func(b *bounds) *[]string { return &b.names }),
		Meaning: "patterns of the names that an owner's vassals have, which are their DNS names too; {owner} is his name: {owner} {owner}-*",
	},
	{
		Name: "network", Kind: ini.List, Since: "0.1", Set: setNetworks,
		Meaning: "the networks that a vassal may be in: devices of tuntap-router lines, and bridge:NAME; network = none is always allowed",
	},
	{
		Name: "devices", Kind: ini.Int, Since: "0.1", Set: setCount(func(b *bounds) *int { return &b.devices }, 16),
		Meaning: "how many devices a vassal has at most",
	},
	{
		Name: "tuntap-device", Kind: ini.List, Since: "0.1", Set: setPatterns(func(b *bounds) *[]string { return &b.deviceName }),
		Meaning: "patterns of the names that an ini may give to devices by tuntap-device, such as web*",
	},
	{
		Name: "tuntap-device-address", Kind: ini.List, Since: "0.1", Set: setPrefixes,
		Meaning: "the prefixes that an ini may choose addresses of; leased ones (auto) are always allowed",
	},
	{
		Name: "unshare", Kind: ini.List, Since: "0.1", Set: setUnshared,
		Meaning: "the namespaces that an ini may ask for: net pid ipc uts user fs; userns = auto asks for user",
	},
	{
		Name: "publish", Kind: ini.Text, Since: "0.1", Repeats: true, Set: setPublished,
		Meaning: "[ADDRESS:]PORT[-PORT][/tcp|/udp] [from PREFIX,...]: ports of the host's that may be published, at that address, for visitors from there; also below 1024. 0.0.0.0 and [::] are all addresses of one family, none all of both",
	},
	{
		Name: "publish-ports", Kind: ini.Int, Since: "0.1", Set: setCount(func(b *bounds) *int { return &b.ports }, 1024),
		Meaning: "how many ports of the host's a vassal publishes at most",
	},
}, confinePolicies, boundedLimits())

// boundedLimits are the limits of whole vassals.
func boundedLimits() []ini.Option[bounds] {
	all := vassal.ResourceOptions(func(b *bounds) *vassal.Resources { return &b.resources }, "; of a vassal whose ini does not say it is the limit too, if the emperor's ini has no lower one")
	for i := range all {
		set := all[i].Set
		all[i].Set = func(b *bounds, p ini.Pair) error {
			if p.Value == boundNone {
				return fmt.Errorf("%s = none: want a limit, max for none at all, or any for that of the emperor's ini", p.Key)
			}
			return set(b, p)
		}
	}
	return all
}

var policyNames = sync.OnceValue(func() (names []string) {
	for _, d := range ini.Docs("", PolicyOptions) {
		names = append(names, d.Name)
	}
	return names
})

// repeats says whether several lines of a key count.
func repeats(key string) bool {
	return slices.ContainsFunc(PolicyOptions, func(o ini.Option[bounds]) bool { return o.Name == key && o.Repeats })
}

// decode adds what the section says to b.
func (s *policySection) decode(b *bounds) (errs ini.Errors) {
	if b.said == nil {
		b.said = map[string][]policyLine{}
	}
	var real []ini.Pair // what is more than a word for the whole
	for _, p := range s.pairs {
		lines := b.said[p.Key]
		if !repeats(p.Key) {
			lines = nil
		}
		if i := slices.IndexFunc(lines, func(l policyLine) bool { return l.Value == boundAny || l.Value == boundNone }); i >= 0 || len(lines) > 0 && (p.Value == boundAny || p.Value == boundNone) {
			errs = append(errs, ini.Error{Pos: p.Pos, Message: fmt.Sprintf("%s = %s, and %s: any and none stand alone; leave one of them out", p.Key, p.Value, lines[max(i, 0)])})
			continue
		}
		b.said[p.Key] = append(lines, policyLine{p, s.header.Name})
		if p.Value != boundAny {
			real = append(real, p)
		}
	}
	errs = append(errs, ini.Decode(b, PolicyOptions, real)...)
	for key, lines := range b.said {
		if len(lines) > 0 && lines[0].Value == boundAny {
			b.said[key] = nil
		}
	}
	return errs
}

// words are those of a list; none is an empty one.
func words(p ini.Pair) ([]string, error) {
	if p.Value == boundNone {
		return nil, nil
	}
	all := strings.FieldsFunc(p.Value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	if len(all) == 0 {
		return nil, errors.New("it is empty; write none for nothing at all, any for what is allowed without a policy, or leave it out")
	}
	if slices.Contains(all, boundAny) || slices.Contains(all, boundNone) {
		return nil, fmt.Errorf("%q: any and none stand alone", p.Value)
	}
	return all, nil
}

func setCount(field func(*bounds) *int, most int) func(*bounds, ini.Pair) error {
	return func(b *bounds, p ini.Pair) error {
		text := p.Value
		if text == boundNone {
			text = "0"
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			return fmt.Errorf("%s = %s: want a number from 0 to %d, or any", p.Key, p.Value, most)
		}
		*field(b) = n
		return nil
	}
}

func setPatterns(field func(*bounds) *[]string) func(*bounds, ini.Pair) error {
	return func(b *bounds, p ini.Pair) error {
		all, err := words(p)
		if err != nil {
			return err
		}
		for _, pattern := range all {
			if _, err := path.Match(pattern, ""); err != nil {
				return fmt.Errorf("%q is no pattern; want a name in which * and ? stand for others, such as web*", pattern)
			}
		}
		*field(b) = all
		return nil
	}
}

// matches says whether a name fits one of the patterns.
func (b *bounds) matches(patterns []string, name string) bool {
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(strings.ReplaceAll(pattern, ownerWord, escape.Replace(b.owner)), name)
		return ok && err == nil
	})
}

// bridgeWord is a kernel's bridge as the option network has it.
func bridgeWord(name string) string { return "bridge:" + name }

func setNetworks(b *bounds, p ini.Pair) error {
	all, err := words(p)
	for _, name := range all {
		if err := vassal.CheckDeviceName(strings.TrimPrefix(name, bridgeWord(""))); err != nil {
			return fmt.Errorf("network %q: %w", name, err)
		}
	}
	b.networks = all
	return err
}

func setPrefixes(b *bounds, p ini.Pair) error {
	all, err := words(p)
	b.addresses = nil
	for _, word := range all {
		a, err := netip.ParsePrefix(word)
		if single, serr := netip.ParseAddr(word); serr == nil && single.Zone() == "" {
			a, err = netip.PrefixFrom(single, single.BitLen()), nil
		}
		switch {
		case err != nil || a.Addr().Is4In6():
			return fmt.Errorf("%q is neither an address nor a prefix; want such as 10.9.1.0/24", word)
		case a != a.Masked():
			return fmt.Errorf("%s: the address has bits beyond the prefix; want %s", a, a.Masked())
		}
		b.addresses = append(b.addresses, a)
	}
	return err
}

func setUnshared(b *bounds, p ini.Pair) error {
	all, err := words(p)
	if err != nil {
		return err
	}
	b.namespaces, err = vassal.ParseNamespaces(strings.Join(all, " "))
	return err
}

func setPublished(b *bounds, p ini.Pair) error {
	if p.Value == boundNone {
		b.publish = nil
		return nil
	}
	one, err := vassal.ParsePublish(p.Value)
	if err != nil {
		return err
	}
	if one.To != one.First {
		return fmt.Errorf("%q names a port of the vassal's, of which each has all; write the host's alone, such as 8000-8999", p.Value)
	}
	one.Pos = p.Pos
	b.publish = append(b.publish, one)
	return nil
}
