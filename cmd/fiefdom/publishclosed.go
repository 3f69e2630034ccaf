package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fiefdom/firewall/nat"
)

// atOdds tells where the host's own firewall and what is published are at odds.
// Looking costs a few processes: an answer serves for a while.
type atOdds struct {
	look func() ([]nat.Collision, error)
	log  *slog.Logger

	waits atomic.Bool // somebody is about to tell

	mu    sync.Mutex
	found []nat.Collision
	at    time.Time
	said  map[string]bool // what was logged, as long as it is so
}

// collisionsAge is how long an answer serves.
const collisionsAge = 5 * time.Second

func (a *atOdds) collisions() []nat.Collision {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) < collisionsAge {
		return a.found
	}
	return a.ask()
}

// ask looks now. The caller has mu.
func (a *atOdds) ask() []nat.Collision {
	found, err := a.look()
	if err != nil {
		a.log.Debug("the host's firewall cannot be read", "err", err)
		return a.found
	}
	a.found, a.at = found, time.Now()
	return found
}

// tell logs what others are kept from and were not before.
func (a *atOdds) tell() {
	if a.waits.Swap(true) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waits.Store(false)
	said := map[string]bool{}
	for _, c := range a.ask() {
		if !c.Closed {
			continue
		}
		text := nat.Ports(c.Ports) + c.By + c.Rule
		if said[text] = true; !a.said[text] {
			a.log.Warn("the host's own firewall closes published ports for other machines", "ports", nat.Ports(c.Ports), "by", c.By, "rule", c.Rule, "open", strings.Join(c.Fix, "; "))
		}
	}
	a.said = said
}

// closed are the words for those who own vassals with these addresses.
func (a *atOdds) closed(to []netip.Addr) (lines []string) {
	for _, c := range a.collisions() {
		ours := slices.DeleteFunc(slices.Clone(c.Ports), func(p nat.Published) bool { return !slices.Contains(to, p.To.Addr()) })
		if c.Closed && len(ours) > 0 {
			c.Ports = ours
			lines = append(lines, "published "+c.String()+"; fiefdom doctor shows how to open it")
		}
	}
	return lines
}
