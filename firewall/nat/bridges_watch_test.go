package nat

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// watch has the rules watched until the test's end.
func (w *bridged) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go w.host.Do(t, func() { done <- w.rules.Watch(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What others flush, delete or add is undone within two seconds, and meanwhile the
// vassals of a bridge do not reach each other: the kernel keeps their ports apart.
func TestBridgeRulesArePutBack(t *testing.T) {
	t.Parallel()
	w := newBridged(t, bridgeOf)
	w.watch(t)
	table := func() string {
		return w.host.Run(t, "sh", "-c", "for f in bridge inet; do nft -s -t list table $f fiefdom-test; done; nft list map bridge fiefdom-test senders; nft list map inet fiefdom-test vassals4")
	}
	whole := table()
	if !strings.Contains(whole, `"pa" : goto port-pa`) {
		t.Fatalf("the rules are\n%s", whole)
	}
	w.a.Run(t, "ip", "addr", "add", "10.100.0.77/24", "dev", "eth0")
	for _, harm := range []string{
		"flush ruleset",
		"delete table bridge fiefdom-test",
		"flush chain bridge fiefdom-test sent",
		"flush chain bridge fiefdom-test port-pa",
		"delete element bridge fiefdom-test senders { \"pa\" }",
		"insert rule bridge fiefdom-test port-pa accept",
		"delete table inet fiefdom-test",
	} {
		w.host.Run(t, "nft", harm)
		begun := time.Now()
		if ping(t, w.a, "10.100.0.3") {
			t.Errorf("after %q a vassal reaches its neighbour", harm)
		}
		nettest.Eventually(t, 10*time.Second, "the rules are back after "+harm, func() bool {
			out, err := tryIn(t, w.host, "for f in bridge inet; do nft -s -t list table $f fiefdom-test; done; nft list map bridge fiefdom-test senders; nft list map inet fiefdom-test vassals4")
			return err == nil && out == whole
		})
		t.Logf("%-60s put back within %v", harm, time.Since(begun).Round(time.Millisecond))
		if ping(t, w.a, "-I", "10.100.0.77", "10.100.0.1") || !ping(t, w.a, "-I", "10.100.0.2", "10.100.0.1") {
			t.Errorf("after %q sources are not checked as before", harm)
		}
	}
	// A port that goes takes its rules along, and the rest stays.
	w.do(t, func() error { return w.rules.Release("pb") })
	if out := table(); strings.Contains(out, "pb") || !strings.Contains(out, `"pa" : goto port-pa`) {
		t.Errorf("after the release of pb:\n%s", out)
	}
	if !ping(t, w.a, "-I", "10.100.0.2", "10.100.0.1") {
		t.Error("the other port's vassal is disturbed")
	}
}

func tryIn(t *testing.T, ns *nettest.NS, script string) (out string, err error) {
	t.Helper()
	ns.Do(t, func() {
		var b []byte
		b, err = exec.Command("sh", "-c", script).CombinedOutput()
		out = string(b)
	})
	return out, err
}

// Foreign tables stay as they are; at the end nothing of ours is left, also not what
// an instance that was killed has left, and an instance without bridges needs no nft.
func TestBridgeRulesAreNobodyElses(t *testing.T) {
	t.Parallel()
	w := newBridged(t, bridgeOf)
	w.host.Run(t, "sh", "-ec", "nft add table bridge fiefdom-test2; nft add table inet other; nft 'add chain inet other in { type filter hook input priority 0; }'; nft add rule inet other in counter")
	foreign := w.host.Run(t, "sh", "-c", "nft -s list table inet other; nft list table bridge fiefdom-test2")
	next := NewBridges("test", slog.New(slog.DiscardHandler))
	w.do(t, next.Remove)
	if out := w.host.Run(t, "nft", "list", "tables"); strings.Contains(out, "fiefdom-test\n") {
		t.Errorf("left over:\n%s", out)
	}
	if out := w.host.Run(t, "sh", "-c", "nft -s list table inet other; nft list table bridge fiefdom-test2"); out != foreign {
		t.Errorf("others' tables:\n%s\nwere\n%s", out, foreign)
	}
}

func TestBridgeRulesWithoutNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b := NewBridges("test", slog.New(slog.DiscardHandler))
	if err := b.Remove(); err != nil {
		t.Errorf("without a bridge: %v", err)
	}
	if err := b.Set([]Bridge{bridgeOf}, nil); err == nil || !strings.Contains(err.Error(), "apt install nftables") {
		t.Errorf("with a bridge: %v", err)
	}
}

// How long a change takes with very many ports.
func BenchmarkBridgePorts(b *testing.B) {
	nettest.Root(b)
	nettest.Program(b, "nft")
	ns := nettest.NewNS(b)
	rules := NewBridges("bench", slog.New(slog.DiscardHandler))
	port := func(n int) Port {
		p := portA
		p.Device = fmt.Sprintf("p%d", n)
		return p
	}
	var ports []Port
	for n := range 1000 {
		ports = append(ports, port(n))
	}
	do := func(f func() error) {
		ns.Do(b, func() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		})
	}
	do(func() error { return rules.Set([]Bridge{bridgeOf}, ports[:999]) })
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			do(func() error { return rules.Set([]Bridge{bridgeOf}, ports[:999]) })
		}
	})
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			do(func() error { return rules.Admit(ports[999]) })
			do(func() error { return rules.Release(ports[999].Device) })
		}
	})
}
