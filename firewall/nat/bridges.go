package nat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bridges is this instance's part of nftables: what may come out of its vassals'
// ports in the kernel's bridges. It is safe for concurrent use. Without a bridge
// it is nothing at all, and needs no nft.
type Bridges struct {
	log *slog.Logger

	Strangers []netip.Prefix // the pools of routers' networks; set before anything else

	mu     sync.Mutex
	nft    string // path; empty until needed
	tables bridgeTables
	there  bool   // the tables have been written
	listed string // how nft prints them; empty: they have been changed since by ourselves

	tick time.Duration
}

// NewBridges prepares the work for an instance; it changes nothing yet.
func NewBridges(instance string, log *slog.Logger) *Bridges {
	return &Bridges{
		log: log, tick: watchTick,
		tables: bridgeTables{name: chainPrefix + instance, bridges: map[string]Bridge{}, ports: map[string]Port{}},
	}
}

// Set puts bridges and ports in place of what there was, also of what another
// emperor of the instance has left, in one step.
func (b *Bridges) Set(bridges []Bridge, ports []Port) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := bridgeTables{name: b.tables.name, strangers: b.Strangers, bridges: map[string]Bridge{}, ports: map[string]Port{}, published: b.tables.published}
	for _, br := range bridges {
		if err := br.check(); err != nil {
			return err
		}
		t.bridges[br.Name] = br
	}
	for _, p := range ports {
		if err := t.checkPort(&p); err != nil {
			return err
		}
		t.ports[p.Device] = p
	}
	b.tables = t
	if len(t.bridges) == 0 {
		return b.remove()
	}
	return b.write()
}

func (t *bridgeTables) checkPort(p *Port) error {
	if _, ok := t.bridges[p.Bridge]; !ok {
		return fmt.Errorf("device %s is in bridge %s, which has no rules", p.Device, p.Bridge)
	}
	return p.check()
}

// Add adds a bridge. One that is there as it is to be is left alone.
func (b *Bridges) Add(br Bridge) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := br.check(); err != nil {
		return err
	}
	old, known := b.tables.bridges[br.Name]
	if known && fmt.Sprint(old) == fmt.Sprint(br) {
		return nil
	}
	b.tables.bridges[br.Name] = br
	if err := b.write(); err != nil {
		if delete(b.tables.bridges, br.Name); known {
			b.tables.bridges[br.Name] = old
		}
		return err
	}
	return nil
}

// Admit lets frames come out of a port, if they are the vassal's own. It comes
// before the port is put into its bridge.
func (b *Bridges) Admit(p Port) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.tables.checkPort(&p); err != nil {
		return err
	}
	old, known := b.tables.ports[p.Device]
	if known && b.there && fmt.Sprint(old) == fmt.Sprint(p) {
		return nil
	}
	b.tables.ports[p.Device] = p
	err := errUnwritten
	if b.there && !known {
		err = b.change(b.tables.admit(p.Device))
	}
	if err != nil {
		err = b.write()
	}
	if err != nil {
		if delete(b.tables.ports, p.Device); known {
			b.tables.ports[p.Device] = old
		}
	}
	return err
}

var errUnwritten = errors.New("not written")

// Release forgets a port that is gone.
func (b *Bridges) Release(device string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.tables.ports[device]
	if !ok {
		return nil
	}
	delete(b.tables.ports, device)
	if err := b.change(b.tables.release(&p)); err != nil {
		return b.write() // somebody else has been there
	}
	return nil
}

// Publish lets isolated vassals reach what is published, at the host's address in
// their bridge too.
func (b *Bridges) Publish(all []Published) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tables.published = slices.Clone(all)
	if !b.there {
		return nil
	}
	if err := b.change(b.tables.publish()); err != nil {
		return b.write()
	}
	return nil
}

// Remove takes the tables away, also those of an instance that was killed.
func (b *Bridges) Remove() error { return b.Set(nil, nil) }

func (b *Bridges) remove() error {
	b.there, b.listed = false, ""
	path, err := exec.LookPath("nft")
	if err != nil {
		return nil //nolint:nilerr // nothing of ours can be there
	}
	b.nft = path
	var t nftText
	for _, family := range []string{"bridge", "inet"} {
		t.add("table %s %s", family, b.tables.name)
		t.add("delete table %s %s", family, b.tables.name)
	}
	there, err := b.run(nil, "list", "tables")
	if err != nil || !strings.Contains(there+"\n", " "+b.tables.name+"\n") {
		return nil //nolint:nilerr // a kernel without nftables has no tables
	}
	if _, err := b.run([]byte(t.String()), "-f", "-"); err != nil {
		return fmt.Errorf("remove the tables %s: %w", b.tables.name, err)
	}
	return nil
}

// write makes both tables anew.
func (b *Bridges) write() error {
	if b.nft == "" {
		path, err := exec.LookPath("nft")
		if err != nil {
			return fmt.Errorf(`nft %w`, errNoNFT)
		}
		b.nft = path
	}
	if err := b.change(b.tables.whole()); err != nil {
		return fmt.Errorf("rules of the kernel's bridges: %w", err)
	}
	b.there = true
	// gofail: var bridgeTablesWritten struct{}
	return nil
}

var errNoNFT = errors.New(`is not installed, and without it nothing would keep the vassals of a kernel's bridge apart; install the package "nftables" (on Debian: apt install nftables), or use a network of tuntap-router`)

// change gives nft commands that it obeys together, or not at all.
func (b *Bridges) change(text string) error {
	b.listed = ""
	_, err := b.run([]byte(text), "-f", "-")
	return err
}

func (b *Bridges) run(stdin []byte, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(b.nft, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %.500s", b.nft, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Watch puts back what others flush or change, until ctx ends.
func (b *Bridges) Watch(ctx context.Context) error {
	events, err := subscribe(ctx, b.tables.name)
	if err != nil {
		return err
	}
	defer events.close()
	failed := false
	err = events.keep(ctx, func() bool {
		err := b.repair()
		if err != nil && !failed {
			b.log.Error("cannot keep the rules of the kernel's bridges in order", "err", err)
		}
		failed = err != nil
		return !failed
	}, func() (bool, error) { return b.changed(ctx, events) })
	if err != nil {
		return fmt.Errorf("watch the rules of the kernel's bridges: %w", err)
	}
	return nil
}

// changed waits for a change of our tables, for a tick at most.
func (b *Bridges) changed(ctx context.Context, e *events) (bool, error) {
	until := time.Now().Add(b.tick)
	for left := b.tick; left > 0 && ctx.Err() == nil; left = time.Until(until) {
		ready, err := poll(left, e.netfilter, e.cancel)
		if err != nil || !ready {
			return false, err
		}
		found, err := e.read(e.netfilter, b.concerned)
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// concerned is true for what is about our tables, and takes or changes something.
func (b *Bridges) concerned(m *syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_DELSET:
		return tableOf(m.Data) == b.tables.name
	}
	return false
}

// tableOf finds the first attribute behind struct nfgenmsg, which is the table's
// name in all of these messages.
func tableOf(data []byte) string {
	const nfgenmsgLen, header, table = 4, 4, 1
	data = data[min(nfgenmsgLen, len(data)):]
	if len(data) < header {
		return ""
	}
	size := int(binary.NativeEndian.Uint16(data))
	if size < header || size > len(data) || binary.NativeEndian.Uint16(data[2:]) != table {
		return ""
	}
	return strings.TrimRight(string(data[header:size]), "\x00")
}

// repair looks whether the tables are as we wrote them, and writes them anew if
// they are not.
func (b *Bridges) repair() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.tables.bridges) == 0 {
		return nil
	}
	now, err := b.list()
	switch {
	case err == nil && b.listed != "" && now == b.listed:
		return nil
	case err == nil && b.listed == "" && b.complete(now):
		b.listed = now
		return nil
	}
	b.log.Warn("put back rules of the kernel's bridges that somebody removed or changed", "chain", b.tables.name)
	if err := b.write(); err != nil {
		return err
	}
	b.listed, err = b.list()
	return err
}

// list is how nft prints the tables, aside from what they count and note.
func (b *Bridges) list() (string, error) {
	var all strings.Builder
	for _, family := range []string{"bridge", "inet"} {
		text, err := b.run(nil, "-s", "-t", "list", "table", family, b.tables.name)
		if err != nil {
			return "", err
		}
		all.WriteString(text)
	}
	kept := [][3]string{{"map", "bridge", "senders"}, {"map", "bridge", "receivers"}, {"map", "inet", "vassals4"}, {"map", "inet", "vassals6"}}
	if b.tables.led() {
		kept = append(kept, [3]string{"set", "inet", "asking4"}, [3]string{"set", "inet", "asking6"})
	}
	for _, m := range kept {
		text, err := b.run(nil, "list", m[0], m[1], b.tables.name, m[2])
		if err != nil {
			return "", err
		}
		all.WriteString(text)
	}
	return all.String(), nil
}

// complete says whether a listing has as much as was written.
func (b *Bridges) complete(listing string) bool {
	elements, chains := b.tables.counts()
	return strings.Count(listing, " : goto ") == elements && strings.Count(listing, "\tchain ") == chains
}
