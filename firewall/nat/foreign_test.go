package nat

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// What the operator forbids before our jump is forbidden.
func TestOperatorsRulesComeFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.host.Run(t, "iptables", "-A", "FORWARD", "-d", inet4, "-j", "DROP")
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, network())
	wantReach(t, false, s.pool, inet4)
	wantReach(t, true, s.pool, inet6)
}

// randomRules fills the tables with rules of somebody else.
func randomRules(t *testing.T, ns *nettest.NS, n int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, cmd := range []string{"iptables-restore", "ip6tables-restore"} {
		v6 := cmd != "iptables-restore"
		var b strings.Builder
		b.WriteString("*filter\n:others - [0:0]\n")
		for range n {
			hook := []string{"INPUT", "FORWARD", "OUTPUT", "others"}[rnd.IntN(4)]
			fmt.Fprintf(&b, "-A %s -s %s -p tcp -m tcp --dport %d -j %s\n", hook, randomPrefix(rnd, v6), rnd.IntN(65536), []string{"ACCEPT", "DROP", "RETURN"}[rnd.IntN(3)])
		}
		b.WriteString("-A FORWARD -m comment --comment \"a canary, with 'quotes'\" -j others\nCOMMIT\n*nat\n")
		for range n / 4 {
			fmt.Fprintf(&b, "-A POSTROUTING -s %s -o eth1 -j MASQUERADE\n", randomPrefix(rnd, v6))
		}
		b.WriteString("COMMIT\n*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n")
		ns.Run(t, "sh", "-c", cmd+" <<'END'\n"+b.String()+"END\n")
	}
}

func randomPrefix(rnd *rand.Rand, v6 bool) string {
	if v6 {
		return fmt.Sprintf("2001:db8:%x::/48", rnd.IntN(65536))
	}
	return fmt.Sprintf("203.0.%d.0/24", rnd.IntN(256))
}

// Rules of others, before ours and after, survive byte for byte, whatever comes
// and goes of ours.
func TestForeignRulesSurvive(t *testing.T) {
	t.Parallel()
	cycles := 6
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		cycles = 1000
	}
	s := newSite(t)
	randomRules(t, s.host, 500)
	all := rules(t, s.host)
	h := newHost(t, s.host, "test", t.TempDir())
	other := newHost(t, s.host, "testing", t.TempDir())
	var before string
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range cycles {
		apply(t, s.host, h, network())
		if i == 0 {
			for _, cmd := range []string{"iptables", "ip6tables"} { // after our jumps
				s.host.Run(t, cmd, "-A", "FORWARD", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
				s.host.Run(t, cmd, "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
			}
			before = foreign(t, s.host)
		}
		publish(t, s.host, h, manyPorts(1+rnd.IntN(60))...)
		apply(t, s.host, other, network())
		publish(t, s.host, other, port("0.0.0.0", 9999, 9999, pool4+":80"))
		publish(t, s.host, h, manyPorts(1+rnd.IntN(60))...)
		if got := foreign(t, s.host); got != before {
			t.Fatalf("cycle %d: foreign rules changed from\n%s\nto\n%s", i, before, got)
		}
		remove(t, s.host, h)
		if got := rules(t, s.host); !strings.Contains(got, "-j fiefdom-testing-fwd") || !strings.Contains(got, "--dport 9999") || strings.Contains(got, "fiefdom-test-") {
			t.Fatalf("cycle %d: removing one instance left\n%s", i, got)
		}
		remove(t, s.host, other)
		if got := rules(t, s.host); got != before {
			t.Fatalf("cycle %d: removing changed the rules from\n%s\nto\n%s", i, before, got)
		}
	}
	for _, cmd := range []string{"iptables", "ip6tables"} {
		s.host.Run(t, cmd, "-D", "FORWARD", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
		s.host.Run(t, cmd, "-t", "nat", "-D", "POSTROUTING", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
	}
	if got := rules(t, s.host); got != all {
		t.Errorf("at the end the rules are not what they were:\n%s\nnow\n%s", all, got)
	}
}

// manyPorts are published ports of both protocols and families, some only by
// the loopback.
func manyPorts(n int) (list []Published) {
	for i := range uint16(n) {
		hosts := []string{"0.0.0.0", "::", host4, "127.0.0.1", "::1"}
		host := hosts[int(i)%len(hosts)]
		to := pool4 + ":80"
		if strings.Contains(host, ":") {
			to = "[" + pool6 + "]:80"
		}
		p := port(host, 1000+i, 1000+i, to)
		if i%3 == 0 {
			p = p.udp()
		}
		list = append(list, p)
	}
	return list
}

// stripEmpty leaves rules only: iptables-nft makes a table when it is first used.
func stripEmpty(s string) (out string) {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "-A") {
			out += line
		}
	}
	return out
}

// Iptables-legacy makes a table when it is asked about it.
func TestLegacyTablesWithoutNeed(t *testing.T) {
	useLegacy(t)
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	remove(t, s.host, h)
	if got := s.host.Run(t, "cat", "/proc/thread-self/net/ip_tables_names"); got != "" {
		t.Errorf("tables after nothing was to be removed:\n%s", got)
	}
	n := network()
	n.Pool = n.Pool[:1]
	apply(t, s.host, h, n)
	publish(t, s.host, h, port(host4, 80, 80, pool4+":80"))
	publish(t, s.host, h)
	remove(t, s.host, h)
	if got := s.host.Run(t, "cat", "/proc/thread-self/net/ip_tables_names"); strings.Contains(got, "mangle") {
		t.Errorf("tables that nobody needed:\n%s", got)
	}
	if got := rules(t, s.host); strings.Contains(got, "fiefdom") {
		t.Errorf("left:\n%s", got)
	}
}
