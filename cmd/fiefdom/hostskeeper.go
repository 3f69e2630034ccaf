package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/hostsfile"
	"fiefdom/internal/responder"
)

// hostsRecord is there, in the state directory, as long as the block is to be kept.
const hostsRecord = "hosts"

// hostEntry is a line of the block.
type hostEntry struct {
	Address netip.Addr `json:"address"`
	Names   []string   `json:"names"`
}

// hostsTold is what "fiefdom hosts --json" prints. The schema is stable: fields
// are only added.
type hostsTold struct {
	Instance string      `json:"instance"`
	Kept     bool        `json:"kept"` // in the file
	File     string      `json:"file"`
	Entries  []hostEntry `json:"entries"`
}

// hostsKeeper keeps the instance's block in /etc/hosts, if somebody has asked for it.
type hostsKeeper struct {
	log      *slog.Logger
	path     string // of the hosts file
	record   string
	instance string
	tyrant   bool

	mu    sync.Mutex
	named []emperor.Named
	whole bool
	said  string // the last trouble
	news  chan struct{}
}

func newHostsKeeper(r *runner) *hostsKeeper {
	return &hostsKeeper{
		log: r.log, path: hostsfile.Path, record: filepath.Join(r.instance.State, hostsRecord), instance: r.instance.Name,
		tyrant: r.config.Tyrant, news: make(chan struct{}, 1),
	}
}

// take takes who there is. As long as not all inis have been read nothing is
// written: who is missing then has only not been met yet.
func (h *hostsKeeper) take(all []emperor.Named, whole bool) {
	h.mu.Lock()
	h.named, h.whole = all, whole
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// hostsTime is how soon a block that somebody else took away is put back.
const hostsTime = 5 * time.Second

// run writes the block whenever it is another, until ctx is done. It stays over
// the emperor's end: who starts before him next time shall find the names.
func (h *hostsKeeper) run(ctx context.Context) {
	tick := time.NewTicker(hostsTime)
	defer tick.Stop()
	for {
		select {
		case <-h.news:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if h.kept() {
			h.complain(h.write())
		}
	}
}

// complain says once what is wrong.
func (h *hostsKeeper) complain(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != "" && said != h.said {
		h.log.Error("the names in the hosts file are not as they should be", "file", h.path, "err", err)
	}
	h.said = said
}

func (h *hostsKeeper) kept() bool {
	_, err := os.Stat(h.record)
	return err == nil
}

func (h *hostsKeeper) write() error {
	h.mu.Lock()
	named, whole := h.named, h.whole
	h.mu.Unlock()
	if !whole {
		return nil
	}
	lines := blockLines(h.entries(named))
	if hostsfile.Has(h.path, h.instance, lines) {
		return nil
	}
	return hostsfile.Put(h.path, h.instance, lines)
}

// do is what the API asks for.
func (h *hostsKeeper) do(keep *bool) (any, error) {
	if keep != nil {
		if err := h.keep(*keep); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return hostsTold{Instance: h.instance, Kept: h.kept(), File: h.path, Entries: h.entries(h.named)}, nil
}

func (h *hostsKeeper) keep(on bool) error {
	if !on {
		return removeHosts(h.path, h.record, h.instance)
	}
	if err := os.WriteFile(h.record, nil, 0o600); err != nil {
		return err
	}
	if err := h.write(); err != nil {
		return errors.Join(err, os.Remove(h.record))
	}
	return nil
}

// removeHosts takes an instance's block away, and the word that it is to be kept.
func removeHosts(path, record, instance string) error {
	if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return hostsfile.Remove(path, instance)
}

// entries are the block's lines: all names below the zone, which nobody else has.
// The short one is the vassal's only if the file has no such name yet, and where
// inis are the operator's.
func (h *hostsKeeper) entries(named []emperor.Named) []hostEntry {
	taken := map[string]bool{"localhost": true}
	if name, err := os.Hostname(); err == nil {
		taken[strings.ToLower(name)] = true
	}
	others, err := hostsfile.Others(h.path)
	if err == nil {
		for line := range strings.Lines(others) {
			line, _, _ = strings.Cut(line, "#")
			for name := range strings.FieldsSeq(line) {
				taken[strings.ToLower(name)] = true
			}
		}
	}
	all := []hostEntry{}
	had := map[string]bool{}
	for _, n := range named {
		name := responder.HostName(n.Name)
		if name == "" || n.Nameless || had[name] {
			continue
		}
		had[name] = true
		for _, on := range n.On {
			for _, a := range on.Addresses {
				e := hostEntry{a, []string{name + "." + responder.Zone, name + "." + strings.ToLower(on.Network) + "." + responder.Zone}}
				if !h.tyrant && !taken[name] && !strings.Contains(name, ".") {
					e.Names = append(e.Names, name)
				}
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b hostEntry) int { return strings.Compare(a.Names[0], b.Names[0]) })
	return all
}

func blockLines(all []hostEntry) string {
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "%s %s\n", e.Address, strings.Join(e.Names, " "))
	}
	return b.String()
}
