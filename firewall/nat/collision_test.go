package nat

import (
	"net"
	"slices"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// What ufw, Docker and firewalld have where packets are forwarded, as far as it
// matters here.
const (
	ufwRules = `*filter
:INPUT DROP
:FORWARD DROP
:ufw-before-logging-forward -
:ufw-before-forward -
:ufw-user-forward -
:ufw-before-input -
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-logging-forward
-A FORWARD -j ufw-before-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -p icmp -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`
	dockerRules = `*filter
:FORWARD DROP
:DOCKER-USER -
:DOCKER -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
`
	firewalldTable = `table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		reject with icmpx admin-prohibited
	}
}
`
)

// restoring is a command that gives both families some rules.
func restoring(text string) string {
	six := strings.NewReplacer("-p icmp", "-p ipv6-icmp", "-m icmp --icmp-type 3", "-m icmp6 --icmpv6-type 1").Replace(text)
	return "iptables-restore --noflush <<'END'\n" + text + "END\n" + "ip6tables-restore --noflush <<'END'\n" + six + "END\n"
}

// firewalls are hosts' own, and what is found of them.
var firewalls = []struct {
	name    string
	prepare string
	by      string // "" for no collision
	rule    string
	unless  string
	fix     string // a line of it
	open    string // commands in place of the lines
	all     bool   // the vassals themselves are kept away too
}{
	{name: "nothing"},
	{
		name: "bare policy", prepare: "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
		by: ByPolicy, rule: "-P FORWARD DROP", fix: "iptables -I FORWARD -d 10.9.0.7 -p tcp --dport 8000 -m conntrack --ctstate DNAT -j ACCEPT",
	},
	{
		name: "ufw", prepare: restoring(ufwRules),
		by: ByUFW, rule: "-P FORWARD DROP", fix: "ufw route allow proto tcp from any to 10.9.0.7 port 8000",
		// What it makes of such a line.
		open: `for p in tcp udp; do iptables -A ufw-user-forward -p $p -d 10.9.0.7 -m $p --dport 8000 -j ACCEPT
			ip6tables -A ufw-user-forward -p $p -d fd00:9::7 -m $p --dport 8000 -j ACCEPT; done`,
	},
	{
		name: "Docker", prepare: restoring(dockerRules),
		by: ByDocker, rule: "-P FORWARD DROP", fix: "iptables -I DOCKER-USER -d 10.9.0.7 -p tcp --dport 8000 -m conntrack --ctstate DNAT -j ACCEPT",
	},
	{
		name:    "a rule before ours",
		prepare: "for c in iptables ip6tables; do $c -A FORWARD -i eth0 -p udp --dport 53 -j ACCEPT; $c -A FORWARD -j REJECT; done",
		all:     true,
		by:      ByRule, rule: "-A FORWARD -j REJECT", fix: "-I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	},
	{
		name:    "open for some",
		prepare: "for c in iptables ip6tables; do $c -A FORWARD -m mark --mark 7 -j ACCEPT; $c -P FORWARD DROP; done",
		by:      ByPolicy, rule: "-P FORWARD DROP", unless: "--mark 0x7",
		fix: "ip6tables -I FORWARD -d fd00:9::7 -p udp --dport 8000 -m conntrack --ctstate DNAT -j ACCEPT",
	},
	{
		name: "firewalld that is strict", prepare: "nft -f - <<'END'\n" + firewalldTable + "END\n",
		all: true, by: ByFirewalld, rule: "chain filter_FORWARD of table inet firewalld", fix: "StrictForwardPorts=no",
		open: "nft insert rule inet firewalld filter_FORWARD ct status dnat accept", // what it has then
	},
	{
		name: "firewalld as it comes", prepare: "nft -f - <<'END'\n" + strings.Replace(firewalldTable, `iifname "lo"`, "ct status dnat", 1) + "END\n",
	},
	{
		name: "nftables", prepare: "nft -f - <<'END'\ntable inet mine {\nchain forth {\ntype filter hook forward priority 0; policy drop;\nct state established,related accept\n}\n}\nEND\n",
		all: true, by: ByNftables, rule: "chain forth of table inet mine", fix: "nft insert rule inet mine forth ct status dnat accept",
	},
	{
		name: "INPUT closes", prepare: "for c in iptables ip6tables; do $c -A INPUT -i lo -j ACCEPT; $c -P INPUT DROP; done; ip6tables -A INPUT -p icmpv6 -j ACCEPT",
		by: ByInput, rule: "-P INPUT DROP",
	},
	{
		name: "INPUT opens it", prepare: "for c in iptables ip6tables; do for p in tcp udp; do $c -A INPUT -p $p --dport 8080 -j ACCEPT; done; $c -P INPUT DROP; done; ip6tables -A INPUT -p icmpv6 -j ACCEPT",
	},
}

func TestCollisions(t *testing.T) {
	for _, tt := range firewalls {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newTown(t)
			serve(t, w.pool, 8000)
			if tt.prepare != "" {
				w.host.Run(t, "sh", "-ec", tt.prepare)
			}
			h := newHost(t, w.host, "test", t.TempDir())
			apply(t, w.host, h, networks()...)
			publish(t, w.host, h, append(everywhere(), port("127.0.0.1", 9090, 9090, pool4+":8000"))...)
			closed := tt.by != "" && tt.by != ByInput
			visit := func(open bool) {
				t.Helper()
				want := map[bool]string{true: inet4}[open]
				wantAnswer(t, w.inet, host4+":8080", want)
				wantAnswer(t, w.inet, net.JoinHostPort(host6, "8080"), map[bool]string{true: inet6}[open])
			}
			visit(!closed)
			if !tt.all { // a network's own vassals come by our rule
				wantAnswer(t, w.other, host4+":8080", gate4)
			}
			found := collisionsOf(t, w.host, h)
			if tt.by == "" {
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			ports, fix := 0, []string{}
			for _, c := range found {
				if c.By != tt.by || c.Closed != closed || !strings.Contains(c.Rule, tt.rule) || !strings.Contains(strings.Join(c.Unless, "\n"), tt.unless) || tt.unless == "" && len(c.Unless) > 0 && tt.by != ByFirewalld {
					t.Errorf("found %+v", c)
				}
				ports += len(c.Ports)
				fix = append(fix, c.Fix...)
			}
			if ports != len(everywhere()) {
				t.Errorf("%d ports in %+v", ports, found)
			}
			if tt.fix != "" && !slices.ContainsFunc(fix, func(s string) bool { return strings.Contains(s, tt.fix) }) {
				t.Errorf("no %q in %q", tt.fix, fix)
			}
			if !closed {
				return
			}
			// The lines do what they promise, and nothing is found any more.
			open := tt.open
			if open == "" {
				open = strings.Join(fix, "\n")
			}
			w.host.Run(t, "sh", "-ec", open)
			visit(true)
			if tt.by != ByUFW { // whose lines know nothing of translation
				wantAnswer(t, w.lan, net.JoinHostPort(pool4, "8000"), "")
			}
			if found := collisionsOf(t, w.host, h); slices.ContainsFunc(found, func(c Collision) bool { return c.Closed }) {
				t.Errorf("found after it was opened: %+v", found)
			}
		})
	}
}

// collisionsOf asks the instance, and checks that who knows of it by the
// kernel's rules alone is told the same.
func collisionsOf(t *testing.T, ns *nettest.NS, h *Host) (found []Collision) {
	t.Helper()
	ns.Do(t, func() {
		var err error
		if found, err = h.Collisions(); err != nil {
			t.Fatal(err)
		}
		read, _, err := Collisions()
		if err != nil {
			t.Fatal(err)
		}
		if a, b := portsOf(found), portsOf(read); !slices.Equal(a, b) {
			t.Errorf("the instance knows of\n%q\nthe kernel of\n%q", a, b)
		}
	})
	return found
}

func portsOf(list []Collision) (ports []string) {
	for _, c := range list {
		for _, p := range c.Ports {
			ports = append(ports, p.String()+" to "+p.To.String()+" of "+p.Device+" by "+c.By)
		}
	}
	slices.Sort(ports)
	return ports
}

// What is read from the kernel's rules is what was published.
func TestPublishedAreRead(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	p := port(host4, 9000, 9009, pool4+":8000")
	p.From = prefixes("203.0.113.0/24", lan4+"/32")
	list := append(manyPorts(60), p, port("::", 9000, 9009, "["+pool6+"]:9000").udp(), port(host6, 80, 80, "["+pool6+"]:8000"))
	publish(t, w.host, h, list...)
	w.host.Do(t, func() {
		for _, v6 := range families {
			f, err := newNetfilter(v6)
			if err != nil {
				t.Fatal(err)
			}
			read, err := f.published()
			if err != nil {
				t.Fatal(err)
			}
			spell := func(list []Published) (lines []string) {
				for _, p := range list {
					lines = append(lines, p.String()+" "+p.To.String()+" "+p.Device+" "+strings.Join(froms(&p), ","))
				}
				slices.Sort(lines)
				return lines
			}
			if a, b := spell(ofKind(list, v6, 0)), spell(read); !slices.Equal(a, b) {
				t.Errorf("published\n%q\nread\n%q", a, b)
			}
		}
	})
}

func froms(p *Published) (list []string) {
	for _, f := range p.From {
		list = append(list, f.String())
	}
	slices.Sort(list)
	return list
}
