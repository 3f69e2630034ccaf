package main

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	noNetwork = "[uwsgi]\nemperor = /run/t/vassals\n"
	// bridgedVassal is a vassal in a bridge that it asks for.
	bridgedVassal = "[uwsgi]\nnetwork = bridge:br0 10.100.0.1/24 fd10::1/64\ncommand = AGENT\n"
)

// Two vassals in a bridge that is made for them reach the internet and are
// answered, but not each other; the bridge goes with the emperor.
func TestKernelBridgeThatIsMade(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{"blog": bridgedVassal, "shop": "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n"})
	r.inet(nettest.InetAddr4, nil)
	r.inet(nettest.InetAddr6, nil)
	blog, shop := r.reach("blog"), r.reach("shop")
	if len(blog.Addresses) != 2 || !r.answers(blog.Addresses[1]) {
		t.Errorf("blog has addresses %v", blog.Addresses)
	}
	if out := r.mustSh(blog, fetch("http://198.51.100.2/")); out != "198.51.100.1\n" {
		t.Errorf("the internet sees %q", out)
	}
	if out := r.mustSh(blog, fetch("'http://[2001:db8:198::2]/'")); out != "2001:db8:198::1\n" {
		t.Errorf("the internet sees %q", out)
	}
	for _, a := range shop.Addresses {
		if out, err := r.sh(blog, "ping -c 1 -W 1 "+a.String()); err == nil {
			t.Errorf("an isolated vassal reaches its neighbour %s:\n%s", a, out)
		}
	}
	blog = r.await("blog", "has counters", func(s emperor.Status) bool { return s.RxBytes > 0 && s.TxBytes > 0 })
	r.stop(syscall.SIGTERM)
}

// An emperor that is killed leaves the vassals of a bridge as they are to the next.
func TestKernelBridgeSurvives(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{"blog": bridgedVassal})
	blog := r.reach("blog")
	tables := func() string {
		return r.Run(t, "sh", "-c", "nft -s -t list table bridge fiefdom-emperor; ip -o link show br0")
	}
	before := tables()
	r.die()
	if out := tables(); out != before {
		t.Errorf("without an emperor:\n%s", out)
	}
	r.start()
	now := r.reach("blog")
	if now.PID != blog.PID || now.Addresses[0] != blog.Addresses[0] {
		t.Errorf("blog was disturbed: %+v, was %+v", now, blog)
	}
	if out := tables(); out != before {
		t.Errorf("with the next emperor:\n%s\nbefore:\n%s", out, before)
	}
	r.drop("shop", strings.ReplaceAll(bridgedVassal, " fd10::1/64", ""))
	r.await("shop", "is refused", func(s emperor.Status) bool {
		return s.State == emperor.Invalid && strings.Contains(s.Error, "blog.ini:2")
	})
	r.remove("blog")
	r.await("blog", "is gone", func(s emperor.Status) bool { return s.Name == "" })
	r.stop(syscall.SIGTERM)
}

// A bridge that was there before is used as it is, and stays: vassals are in its
// network beside machines of others, with its MTU and the gateway of that network.
func TestKernelBridgeOfOthers(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", noNetwork+"bridge = lan0\nbridge-isolate = off\n")
	lan := nettest.NewNS(t)
	nettest.Veth(t, nettest.End{NS: r.Host, Name: "port0"},
		nettest.End{NS: lan, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}})
	r.Run(t, "sh", "-ec", `ip link add lan0 address 02:11:22:33:44:55 type bridge
		echo 1 >/proc/sys/net/ipv6/conf/lan0/disable_ipv6
		ip link set port0 mtu 1400 master lan0
		ip link set lan0 up
		ip addr add 203.0.113.10/24 dev lan0
		ip route replace default via 203.0.113.1`)
	lan.Run(t, "sh", "-ec", "ip link set eth0 mtu 1400; ip addr add 192.0.2.1/32 dev lo")
	r.drop("blog", "[uwsgi]\nnetwork = bridge:lan0\ntuntap-device-address = 203.0.113.20\ncommand = AGENT\n")
	r.drop("shop", "[uwsgi]\nnetwork = bridge:lan0\ncommand = AGENT\n")
	r.drop("wiki", "[uwsgi]\nnetwork = bridge:lan0\ntuntap-device-address = 203.0.113.21\ntuntap-device-mtu = 1500\ncommand = AGENT\n")
	r.start()
	blog := r.reach("blog")
	out := r.mustSh(blog, "ip route; cat /sys/class/net/eth0/mtu; ping -c 1 -W 2 192.0.2.1; ping -c 1 -W 2 203.0.113.10")
	for _, want := range []string{"default via 203.0.113.1", "\n1400\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("blog has no %q:\n%s", want, out)
		}
	}
	lan.Run(t, "curl", "-sS", "-m", "5", "http://203.0.113.20:8000/")
	for name, want := range map[string]string{"shop": "tuntap-device-address = ADDRESS", "wiki": "MTU 1500 is more"} {
		if s := r.awaitState(name, emperor.Invalid); !strings.Contains(s.Error, want) {
			t.Errorf("%s: %s", name, s.Error)
		}
	}
	if out := r.Run(t, "sh", "-c", "iptables-save -t nat | grep -c MASQUERADE || :"); strings.TrimSpace(out) != "0" {
		t.Errorf("masquerading that nobody asked for: %s", out)
	}
	if out := r.Run(t, "ip", "-o", "link", "show", "lan0"); !strings.Contains(out, "02:11:22:33:44:55") {
		t.Errorf("the bridge's MAC has become %s", out)
	}
	r.stop(syscall.SIGTERM) // and the bridge is there, or something would be missing
}

// Names and addresses that cannot be a bridge's are refused, with a way out, before
// anything is made: in the emperor's ini and in vassals'.
func TestKernelBridgeClashes(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-ec", "ip addr add 10.77.5.1/24 dev eth0; ip route add 10.88.0.0/16 via 198.51.100.2; ip link add down0 type bridge; for b in up0 up1; do ip link add $b type bridge; echo 1 >/proc/sys/net/ipv6/conf/$b/disable_ipv6; ip link set $b up; done; ip link property add dev up0 altname lan9")
	r.before = r.Snapshot(t)
	vassals := map[string][2]string{
		"lan":   {"bridge:br0 10.77.0.1/16", "overlaps the host's network 10.77.5.0/24 on eth0; choose another, such as 10."},
		"vpn":   {"bridge:br1 10.88.3.1/24", "overlaps the host's network 10.88.0.0/16 on eth0; choose another, such as 10."},
		"pool":  {"bridge:br2 10.9.7.1/24", "10.9.0.0/16"},
		"name":  {"bridge:eth0 10.100.0.1/24", "is no bridge (veth); choose another name, such as br0"},
		"tun":   {"bridge:fief0 10.100.0.1/24", "is no bridge (tuntap); choose another name, such as br0"},
		"none":  {"bridge:br3", "bridge:br3 10.100.0.1/24"},
		"down":  {"bridge:down0 10.101.0.1/24", "ip link set down0 up"},
		"other": {"bridge:up0 10.102.0.1/24", "ip addr add 10.102.0.1/24 dev up0"},
		"alias": {"bridge:lan9", "lan9 is another name of bridge up0; write bridge:up0"},
		"bare":  {"bridge:up1", "has no address of the host's"},
	}
	for name, v := range vassals {
		r.drop(name, "[uwsgi]\nnetwork = "+v[0]+"\ncommand = AGENT\n")
	}
	r.writeAs(iniPath("guest"), "[uwsgi]\nuid = 1000\nnetwork = bridge:up0\ncommand = AGENT\n", 1000, 1000)
	vassals["guest"] = [2]string{"", "bridge = up0"}
	r.start()
	for name, v := range vassals {
		if s := r.awaitState(name, emperor.Invalid); !strings.Contains(s.Error, v[1]) || !strings.Contains(s.Error, name+".ini:") {
			t.Errorf("%s: %s\nwant %q", name, s.Error, v[1])
		}
	}
	r.stop(syscall.SIGTERM)

	for ini, want := range map[string]string{
		"bridge = br0 10.77.0.1/16": "choose another, such as 10.",
		"bridge = eth0":             "is no bridge",
		"bridge = br0":              "10.100.0.1/24",
		"bridge = br0 10.9.7.1/24":  "10.9.0.0/16",
		"bridge-nat = auto":         "write bridge = NAME before it",
	} {
		r.write("/run/t/emperor.ini", nativeNetwork+ini+"\n")
		out, code := r.run("run", "/run/t/emperor.ini")
		if code == exitOK || !strings.Contains(out, want) || !strings.Contains(out, "emperor.ini:7") {
			t.Errorf("%s: exit code %d, want %q:\n%s", ini, code, want, out)
		}
		r.checkNothingLeft()
	}
}

// Nobody looks for what the router would know of a vassal that has none.
func TestKernelBridgeSaysWhoMovesPackets(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{"blog": bridgedVassal})
	r.reach("blog")
	for _, args := range [][]string{{"explain", "blog", "out", "tcp", "198.51.100.2:80"}, {"explain", "--last-drops", "blog"}, {"capture", "blog"}} {
		out, code := r.run(args...)
		if code != exitFailed || !strings.Contains(out, "tcpdump -ni emp-") || !strings.Contains(out, "nft list table bridge fiefdom-emperor") {
			t.Errorf("fiefdom %v: exit code %d\n%s", args, code, out)
		}
	}
	r.stop(syscall.SIGTERM)
}

// What a vassal of a bridge publishes is reached from the host, by 127.0.0.1 too, from
// elsewhere, by its neighbours and by itself, and nothing more of it is; the next
// emperor keeps it so.
func TestKernelBridgePublishes(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{
		"blog": bridgedVassal + "publish = 8080:8000\n",
		"shop": "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n",
	})
	blog, shop := r.reach("blog"), r.reach("shop")
	reached := func(when string) {
		t.Helper()
		for _, host := range []string{"127.0.0.1", "198.51.100.1", "10.100.0.1", "[fd10::1]"} {
			r.Run(t, "curl", "-sS", "-m", "5", "http://"+host+":8080/")
		}
		for _, host := range []string{"198.51.100.1", "[2001:db8:198::1]"} {
			r.Inet.Run(t, "curl", "-sS", "-m", "5", "http://"+host+":8080/")
		}
		for _, host := range []string{"198.51.100.1", "10.100.0.1", "[fd10::1]"} {
			r.mustSh(blog, fetch("'http://"+host+":8080/'"))
			r.mustSh(shop, fetch("'http://"+host+":8080/'"))
		}
		if out, err := r.sh(shop, fetch("http://"+blog.Addresses[0].String()+":8000/")); err == nil {
			t.Errorf("%s: a neighbour reaches blog directly:\n%s", when, out)
		}
	}
	reached("at first")
	r.die()
	r.start()
	reached("with the next emperor")
	r.drop("blog", bridgedVassal)
	nettest.Eventually(t, patience, "nothing is published", func() bool {
		_, err := r.Try(t, "curl", "-sS", "-m", "1", "http://198.51.100.1:8080/")
		return err != nil
	})
	if now := r.ps("blog"); now.PID != blog.PID {
		t.Errorf("blog was started anew: %+v", now)
	}
	if out, err := r.sh(shop, fetch("http://198.51.100.1:8080/")); err == nil {
		t.Errorf("published no more, and reached:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}
