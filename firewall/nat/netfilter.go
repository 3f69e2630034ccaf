package nat

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
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
	restore string // path of iptables-restore
	legacy  bool   // changes of it are not announced by netlink

	text   string              // as given to the last restore
	listed map[string][]string // by chain, as listed right after that
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
	return &netfilter{v6: v6, ipt: ipt, restore: restore, legacy: !bytes.Contains(version, []byte("nf_tables"))}, nil
}

// ensure makes the chains and their jumps be there as given. It reports
// whether the chains had been written before and somebody else changed them.
func (f *netfilter) ensure(chains []chain) (repaired bool, err error) {
	text := restoreText(chains)
	same := text == f.text
	intact := false
	if same {
		if intact, err = f.intact(chains); err != nil {
			return false, err
		}
	}
	if !intact {
		if err := f.write(text, chains); err != nil {
			return false, err
		}
	}
	repaired = same && !intact
	for _, c := range chains {
		placed, err := f.placeJump(c)
		if err != nil {
			return repaired, err
		}
		repaired = repaired || placed && same
	}
	return repaired, nil
}

// write loads text and remembers how iptables prints the
// chains: that differs between its versions, so a later look is compared with
// this one and not with what we wrote.
func (f *netfilter) write(text string, chains []chain) error {
	f.text = ""
	if err := f.load(text); err != nil {
		return fmt.Errorf("write our chains: %w", err)
	}
	// gofail: var chainsWritten struct{}
	listed := map[string][]string{}
	for _, c := range chains {
		lines, err := f.list(c.table, c.name)
		if err != nil {
			return err
		}
		if len(lines) != len(c.rules) {
			return fmt.Errorf("chain %s has %d rules just after we wrote %d; somebody else changes it", c.name, len(lines), len(c.rules))
		}
		listed[c.name] = lines
	}
	f.text, f.listed = text, listed
	return nil
}

func (f *netfilter) intact(chains []chain) (bool, error) {
	for _, c := range chains {
		lines, err := f.list(c.table, c.name)
		if isAbsent(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !slices.Equal(lines, f.listed[c.name]) {
			return false, nil
		}
	}
	return true, nil
}

// placeJump sees to it that there is exactly one jump; a new one is the last
// rule of its chain.
func (f *netfilter) placeJump(c chain) (placed bool, err error) {
	n, err := f.jumps(c)
	if err != nil {
		return false, err
	}
	for ; n > 1; n-- {
		if err := f.ipt.Delete(c.table, c.hook, "-j", c.name); err != nil {
			return false, fmt.Errorf("remove a second jump to %s: %w", c.name, err)
		}
	}
	if n == 1 {
		return false, nil
	}
	if err := f.ipt.Append(c.table, c.hook, "-j", c.name); err != nil {
		return false, fmt.Errorf("jump from %s to %s: %w", c.hook, c.name, err)
	}
	// gofail: var jumpPlaced struct{}
	return true, nil
}

func (f *netfilter) jumps(c chain) (n int, err error) {
	lines, err := f.list(c.table, c.hook)
	for _, line := range lines {
		if line == "-A "+c.hook+" -j "+c.name {
			n++
		}
	}
	return n, err
}

// remove takes away the jumps and the chains, as far as they are there, in one
// step: singly each of them costs the kernel tens of milliseconds.
func (f *netfilter) remove(chains []chain) (err error) {
	f.text = ""
	// What somebody else removes after we looked makes the whole step fail.
	for range 3 {
		var text string
		if text, err = f.removal(chains); err != nil || text == "" {
			return err
		}
		if err = f.load(text); err == nil {
			return nil
		}
	}
	return fmt.Errorf("remove our chains (jumps to them that are not ours must go first): %w", err)
}

// removal is the text for iptables-restore; "" if nothing of ours is there.
func (f *netfilter) removal(chains []chain) (string, error) {
	lines := map[string]string{} // by table
	for _, c := range chains {
		n, err := f.jumps(c)
		if err != nil {
			return "", err
		}
		there, err := f.ipt.ChainExists(c.table, c.name)
		if err != nil {
			return "", fmt.Errorf("look for chain %s: %w", c.name, err)
		}
		if there { // else there is no jump either
			lines[c.table] += fmt.Sprintf(":%s - [0:0]\n", c.name) + // empties it
				strings.Repeat(fmt.Sprintf("-D %s -j %s\n", c.hook, c.name), n) +
				fmt.Sprintf("-X %s\n", c.name)
		}
	}
	var b strings.Builder
	for _, table := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "*%s\n%sCOMMIT\n", table, lines[table])
	}
	return b.String(), nil
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
	chains, err := f.ipt.ListChains("filter")
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
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
