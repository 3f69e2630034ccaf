package nat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// lockWait is how long to wait for the xtables lock, in seconds. Somebody who
// holds it for half a minute must not make a start fail.
const lockWait = 60

// netfilter is one family's iptables and what we know to be in it.
type netfilter struct {
	v6      bool
	ipt     *iptables.IPTables
	path    string // of iptables
	restore string // and of iptables-restore
	legacy  bool   // changes of it are not announced by netlink

	text   map[string]string              // by table, as given to its last restore
	listed map[string]map[string][]string // by table and chain, as listed right after that
}

// errNoIPTables is returned by newNetfilter where there is no iptables.
var errNoIPTables = errors.New(`is not installed; install the package "iptables" (on Debian: apt install iptables), or set tuntap-router-nat = off`)

func newNetfilter(v6 bool) (*netfilter, error) {
	name, proto := "iptables", iptables.ProtocolIPv4
	if v6 {
		name, proto = "ip6tables", iptables.ProtocolIPv6
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, errNoIPTables)
	}
	restore, err := exec.LookPath(name + "-restore")
	if err != nil {
		return nil, fmt.Errorf("%s-restore %w", name, errNoIPTables)
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", name, err)
	}
	ipt, err := iptables.New(iptables.Path(path), iptables.IPFamily(proto), iptables.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("use %s: %w", name, err)
	}
	f := &netfilter{v6: v6, ipt: ipt, path: path, restore: restore, legacy: !bytes.Contains(version, []byte("nf_tables"))}
	f.forget()
	return f, nil
}

// ensure makes the chains and their jumps be there as given, and no others of
// ours unless keep is set. Unless it is to look at all, tables that should be as
// they were written last are taken to be so. It reports what was written, and
// whether chains that had been written before were changed by somebody else.
func (f *netfilter) ensure(base string, chains []chain, keep, all bool) (wrote, repaired bool, err error) {
	for _, table := range tables {
		of := slices.DeleteFunc(slices.Clone(chains), func(c chain) bool { return c.table != table })
		text := restoreText(table, of, "")
		before, known := f.text[table]
		if len(of) == 0 && (keep || known && before == text || !f.uses(table)) {
			continue
		}
		same := known && before == text
		if same && !all {
			continue
		}
		var now map[string][]string
		intact := false
		if same {
			if now, err = f.look(table, of); err != nil {
				return wrote, repaired, err
			}
			intact = f.intact(table, of, now)
		}
		if !intact {
			if now, err = f.write(base, table, text, of, keep); err != nil {
				return wrote, repaired, err
			}
			wrote = wrote || !same
		}
		repaired = repaired || same && !intact
		for _, c := range of {
			placed, err := f.placeJump(c, now[c.hook])
			if err != nil {
				return wrote, repaired, err
			}
			repaired = repaired || placed && same
		}
	}
	return wrote, repaired, nil
}

// write loads a table's chains and returns how iptables prints them, which it
// remembers: that differs between its versions, so a later look is compared with
// this one and not with what we wrote. What else there is of ours goes in the
// same step.
func (f *netfilter) write(base, table, text string, chains []chain, keep bool) (map[string][]string, error) {
	before := f.listed[table] // nil if we do not know what is there
	delete(f.text, table)
	delete(f.listed, table)
	wanted := func(name string) bool {
		return slices.ContainsFunc(chains, func(c chain) bool { return c.name == name || c.hook == name })
	}
	goes := before == nil
	for name := range before {
		goes = goes || !wanted(name)
	}
	var err error
	if goes && !keep {
		err = f.replace(base, table, chains)
	} else {
		err = f.load(text)
	}
	if err != nil {
		if table == "mangle" {
			err = fmt.Errorf("%w; if the kernel has no xt_connlimit, set tuntap-router-flows = 0", err)
		}
		return nil, fmt.Errorf("write our chains: %w", err)
	}
	// gofail: var chainsWritten struct{}
	now, err := f.look(table, chains)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		if n := len(now[c.name]); n != len(c.rules) {
			return nil, fmt.Errorf("chain %s has %d rules just after we wrote %d; somebody else changes it", c.name, n, len(c.rules))
		}
	}
	listed := map[string][]string{}
	for _, c := range chains {
		listed[c.name] = now[c.name]
	}
	f.text[table], f.listed[table] = text, listed
	return now, nil
}

// replace loads a table's chains and takes away all others of ours in the same
// step. What somebody else removes after we looked makes it fail as a whole, so
// it is tried again.
func (f *netfilter) replace(base, table string, chains []chain) (err error) {
	for range 3 {
		var removal string
		if removal, err = f.removal(base, table, chains); err != nil || len(chains) == 0 && removal == "" {
			return err
		}
		if err = f.load(restoreText(table, chains, removal)); err == nil {
			return nil
		}
	}
	return err
}

// intact compares a look with the one after our last write.
func (f *netfilter) intact(table string, chains []chain, now map[string][]string) bool {
	return !slices.ContainsFunc(chains, func(c chain) bool {
		lines, there := now[c.name]
		return !there || !slices.Equal(lines, f.listed[table][c.name])
	})
}

// look lists chains of one table, and those that they hang from, as far as they
// are there: singly where they are few, else by one look at the whole table,
// which a rule that iptables cannot print makes fail. Iptables-legacy always
// takes the whole table from the kernel.
func (f *netfilter) look(table string, chains []chain) (map[string][]string, error) {
	const few = 8
	if len(chains) > few || f.legacy {
		if all, err := f.dump(table); err == nil {
			return byChain(all), nil
		}
	}
	listed := map[string][]string{}
	for _, c := range chains {
		for _, name := range []string{c.name, c.hook} {
			if _, known := listed[name]; known || name == "" {
				continue
			}
			lines, err := f.list(table, name)
			if isAbsent(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			listed[name] = lines
		}
	}
	return listed, nil
}

// byChain sorts what "iptables -S" prints by chain.
func byChain(lines []string) map[string][]string {
	chains := map[string][]string{}
	for _, line := range lines {
		line = strings.TrimRight(line, "\n")
		words := strings.SplitN(line, " ", 3)
		if len(words) < 2 {
			continue
		}
		list := chains[words[1]]
		if words[0] == "-A" {
			list = append(list, line)
		}
		chains[words[1]] = list
	}
	return chains
}

// placeJump sees to it that there is exactly one jump among the rules of its
// hook; a new one is the last of them.
func (f *netfilter) placeJump(c chain, hook []string) (placed bool, err error) {
	if c.hook == "" {
		return false, nil
	}
	n, rule := c.jumps(hook), strings.Fields(c.jump())
	for ; n > 1; n-- {
		if err := f.ipt.Delete(c.table, c.hook, rule...); err != nil {
			return false, fmt.Errorf("remove a second jump to %s: %w", c.name, err)
		}
	}
	if n == 1 {
		return false, nil
	}
	if err := f.ipt.Append(c.table, c.hook, rule...); err != nil {
		return false, fmt.Errorf("jump from %s to %s: %w", c.hook, c.name, err)
	}
	// gofail: var jumpPlaced struct{}
	return true, nil
}

// remove takes away the jumps and the chains, as far as they are there, a table
// in one step: singly each of them costs the kernel tens of milliseconds.
func (f *netfilter) remove(base string) error {
	f.forget()
	for _, table := range tables {
		if err := f.replace(base, table, nil); err != nil {
			return fmt.Errorf("remove our chains (jumps to them that are not ours must go first): %w", err)
		}
	}
	return nil
}

func (f *netfilter) forget() {
	f.text, f.listed = map[string]string{}, map[string]map[string][]string{}
}

// removal is the part of a restore's text that takes away our chains of a table
// that are not wanted; "" if there are none.
func (f *netfilter) removal(base, table string, wanted []chain) (string, error) {
	if !f.uses(table) {
		return "", nil
	}
	there, err := f.chainNames(table)
	if err != nil {
		return "", err
	}
	is := func(name string) func(chain) bool { return func(c chain) bool { return c.name == name } }
	var empty, jumps, gone strings.Builder
	for _, name := range there {
		i := slices.IndexFunc(hung(base), is(name))
		if i < 0 && !isBucket(base, name) || slices.ContainsFunc(wanted, is(name)) {
			continue
		}
		fmt.Fprintf(&empty, ":%s - [0:0]\n", name)
		fmt.Fprintf(&gone, "-X %s\n", name)
		if i < 0 {
			continue
		}
		c := hung(base)[i]
		hook, err := f.list(table, c.hook)
		if err != nil {
			return "", err
		}
		jumps.WriteString(strings.Repeat(fmt.Sprintf("-D %s %s\n", c.hook, c.jump()), c.jumps(hook)))
	}
	return empty.String() + jumps.String() + gone.String(), nil
}

// load gives text to iptables-restore.
func (f *netfilter) load(text string) error {
	var stderr bytes.Buffer
	cmd := exec.Command(f.restore, "--noflush", "--wait="+strconv.Itoa(lockWait))
	cmd.Stdin, cmd.Stderr = strings.NewReader(text), &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", f.restore, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// guards lists the devices that other instances guard.
func (f *netfilter) guards(own string) (devices []string, err error) {
	chains, err := f.chainNames("filter")
	if err != nil {
		return nil, err
	}
	for _, name := range chains {
		if name == own || !strings.HasPrefix(name, chainPrefix) {
			continue
		}
		lines, err := f.list("filter", name)
		if isAbsent(err) {
			continue // its instance stopped just now
		}
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if dev, ok := guardedDevice(line); ok {
				devices = append(devices, dev)
			}
		}
	}
	return devices, nil
}

// dump prints a whole table, also as much of it as there is with an error.
func (f *netfilter) dump(table string) ([]string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(f.path, "-t", table, "-S", "--wait="+strconv.Itoa(lockWait))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("list table %s: %w: %s", table, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return slices.Collect(strings.Lines(string(out))), err
}

// uses reports whether the kernel has a table; to list one that it has not makes
// it with iptables-legacy.
func (f *netfilter) uses(table string) bool {
	names := "/proc/thread-self/net/ip_tables_names"
	if f.v6 {
		names = "/proc/thread-self/net/ip6_tables_names"
	}
	b, err := os.ReadFile(names)
	return !f.legacy || err == nil && slices.Contains(strings.Fields(string(b)), table)
}

// chainNames lists the chains of a table. They come before all rules, of which
// there may be some that iptables cannot print.
func (f *netfilter) chainNames(table string) (names []string, err error) {
	lines, err := f.dump(table)
	for _, line := range lines {
		if words := strings.Fields(line); len(words) > 1 && (words[0] == "-P" || words[0] == "-N") {
			names = append(names, words[1])
		}
	}
	if len(names) == 0 {
		return nil, err
	}
	return names, nil
}

// list returns the rules of a chain as "iptables -S" prints them, without its
// policy or declaration.
func (f *netfilter) list(table, chain string) ([]string, error) {
	lines, err := f.ipt.List(table, chain)
	if err != nil {
		return nil, fmt.Errorf("list chain %s of table %s: %w", chain, table, err)
	}
	return slices.DeleteFunc(lines, func(s string) bool { return !strings.HasPrefix(s, "-A ") }), nil
}

// isAbsent reports whether iptables failed for want of the chain. Its words
// for that differ between versions ("is incompatible" is one), its exit status
// does not: 3 is a missing table, 4 the lock.
func isAbsent(err error) bool {
	e, ok := errors.AsType[*iptables.Error](err)
	return ok && e.ExitStatus() == 1
}

// hasIPv6 reports whether the kernel has IPv6 at all; without, ip6tables fails.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}
