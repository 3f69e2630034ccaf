package vassal

import (
	"slices"
	"strings"
	"testing"

	"fiefdom/firewall"
)

// chainOf are rules of an ini, a line each; those of chain in begin with "in".
func chainOf(t *testing.T, words RuleWords, texts ...string) (rules []Rule) {
	t.Helper()
	for i, text := range texts {
		dir := firewall.Out
		if rest, ok := strings.CutPrefix(text, "in "); ok {
			dir, text = firewall.In, rest
		}
		r, err := words.Parse(dir, text)
		if err != nil {
			t.Fatal(err)
		}
		r.Rule.File, r.Rule.Line = "a.ini", i+1
		rules = append(rules, r)
	}
	return rules
}

func texts(rules []Rule) (all []string) {
	for i := range rules {
		all = append(all, rules[i].Direction.String()+" "+ChainWords.Text(&rules[i]))
	}
	return all
}

func TestEdits(t *testing.T) {
	files := chainOf(t, ChainWords, "deny any 10.0.0.1", "in deny any 10.0.0.2", "deny any 10.0.0.3")
	added := chainOf(t, ChainWords, "allow any 10.0.0.9 tcp 80")[0]
	e := Unedited(files)
	want := func(e Edits, unsaved bool, inForce ...string) {
		t.Helper()
		if got := texts(e.InForce()); !slices.Equal(got, inForce) || e.Unsaved() != unsaved || !slices.Equal(texts(e.OfFiles()), texts(files)) {
			t.Errorf("in force %q, unsaved %v; want %q, %v; of files %q", got, e.Unsaved(), inForce, unsaved, texts(e.OfFiles()))
		}
	}
	want(e, false, "out deny any 10.0.0.1", "in deny any 10.0.0.2", "out deny any 10.0.0.3")
	for n, place := range map[int]int{1: 0, 2: 2, 3: 3, 0: 3} {
		x, err := e.Insert(n, added)
		if err != nil || !x[place].Added || x.Number(&added) != max(n, 1) && n != 0 || x[place].Rule.Rule.File != firewall.Unsaved {
			t.Errorf("as rule %d: %v, %+v", n, err, x)
		}
	}
	if _, err := e.Insert(4, added); err == nil || !strings.Contains(err.Error(), "there is no rule 4: out has 2") {
		t.Errorf("too far: %v", err)
	}
	if x, err := Edits(nil).Insert(1, added); err != nil || len(x) != 1 {
		t.Errorf("into an empty chain: %v, %+v", err, x)
	}
	x, gone, err := e.Delete(firewall.Out, 2)
	if err != nil || gone.Rule.Line != 3 {
		t.Fatal(err, gone)
	}
	if x, err = x.Insert(2, added); err != nil {
		t.Fatal(err)
	}
	want(x, true, "out deny any 10.0.0.1", "in deny any 10.0.0.2", "out allow any 10.0.0.9 tcp 80")
	if _, _, err := x.Delete(firewall.Out, 3); err == nil {
		t.Error("a rule was deleted twice")
	}
	y, _, err := x.Delete(firewall.Out, 2)
	if err != nil || len(y) != 3 {
		t.Errorf("an added rule that is deleted leaves %+v, %v", y, err)
	}
	want(e, false, "out deny any 10.0.0.1", "in deny any 10.0.0.2", "out deny any 10.0.0.3") // a change is another list

	// The files have the same rules at other places, or others.
	moved := slices.Clone(files)
	for i := range moved {
		moved[i].Rule.Line += 10
	}
	moved[0], moved[1] = moved[1], moved[0] // of different chains
	if z, ok := x.Over(moved); !ok || !z[2].Deleted && !z[3].Deleted || z[0].Rule.Rule.Line != 11 {
		t.Errorf("over the same rules: %v, %+v", ok, z)
	}
	for name, other := range map[string][]Rule{
		"less": files[:2], "more": append(slices.Clone(files), added), "none": nil,
		"another port": append(slices.Clone(files[:2]), chainOf(t, ChainWords, "deny any 10.0.0.3 tcp 80")...),
		"another way":  {files[2], files[1], files[0]},
	} {
		if _, ok := x.Over(other); ok {
			t.Errorf("%s: taken for the same", name)
		}
	}
}

// A line is a rule's only if it says the very same.
func TestRuleOption(t *testing.T) {
	network := chainOf(t, ChainWords, "deny any 10.0.0.1 tcp 22,80")[0]
	device := chainOf(t, DeviceWords, "any 10.0.0.1 deny", "10.9.0.0/16 any route 198.51.100.2:4040")
	for _, c := range []struct {
		words      RuleWords
		rule       *Rule
		key, value string
		want       bool
	}{
		{ChainWords, &network, "tuntap-router-firewall-out", "deny  any 10.0.0.1/32 tcp 22,80", true},
		{ChainWords, &network, "tuntap-router-firewall-in", "deny any 10.0.0.1 tcp 22,80", false},
		{ChainWords, &network, "tuntap-router-firewall-out", "deny any 10.0.0.1 tcp 22", false},
		{ChainWords, &network, "tuntap-router-firewall-out", "deny any %(a) tcp 22,80", false},
		{DeviceWords, &device[0], "tuntap-device-rule", "out any 10.0.0.1 deny", true},
		{DeviceWords, &device[0], "tuntap-device-rule", "in any 10.0.0.1 deny", false},
		{DeviceWords, &device[1], "tuntap-device-rule", "out 10.9.0.0/16 any gateway 198.51.100.2:4040", true},
		{DeviceWords, &device[1], "tuntap-device-rule", "out 10.9.0.0/16 any route 198.51.100.2:4041", false},
		{DeviceWords, &device[1], "tuntap-device-rule", "out 10.9.0.0/16 any allow", false},
	} {
		p := c.words.Option(c.rule)
		p.Key, p.Value = c.key, c.value
		if got := c.words.Is(p, c.rule); got != c.want {
			t.Errorf("%s = %s is %s: %v", c.key, c.value, c.words.Text(c.rule), got)
		}
	}
}
