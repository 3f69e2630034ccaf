package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// A bridge of somebody else's that goes away with a vassal in it is that vassal's
// loss alone: others publish, and get bridges, with this emperor and the next.
func TestKernelBridgeThatGoesAway(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-ec", "ip link add lan0 address 02:11:22:33:44:55 type bridge; ip link set lan0 up; ip addr add 203.0.113.10/24 dev lan0")
	const shop = "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = auto\n"
	r.drop("blog", "[uwsgi]\nnetwork = bridge:lan0\ntuntap-device-address = 203.0.113.20\ncommand = AGENT\npublish = 8080:8000\n")
	r.drop("shop", shop+"publish = 8081:8000\n")
	r.start()
	r.reach("blog")
	r.reach("shop")
	answers := func(port string) {
		t.Helper()
		nettest.Eventually(t, patience, "an answer at "+port, func() bool {
			_, err := r.Try(t, "curl", "-sS", "-m", "2", "http://127.0.0.1:"+port+"/")
			return err == nil
		})
	}
	answers("8080")
	r.Run(t, "ip", "link", "del", "lan0")
	r.drop("shop", shop+"publish = 8082:8000\n")
	answers("8082")
	r.drop("wiki", bridgedVassal+"publish = 8083:8000\n")
	answers("8083")
	r.die()
	r.start()
	r.reach("shop")
	answers("8082")
	r.drop("shop", shop+"publish = 8084:8000\n")
	answers("8084")
	answers("8083")
	// It comes back, with nobody's port in it: who was in it is still in nobody's way.
	r.Run(t, "sh", "-ec", "ip link add lan0 address 02:11:22:33:44:55 type bridge; ip link set lan0 up; ip addr add 203.0.113.10/24 dev lan0")
	r.drop("blog", "[uwsgi]\nnetwork = bridge:lan0\ntuntap-device-address = 203.0.113.20\ncommand = AGENT\npublish = 8085:8000\n")
	r.await("blog", "publishes as its ini says now", func(s emperor.Status) bool {
		return len(s.Published) > 0 && s.Published[0].Port == 8085
	})
	r.drop("shop", shop+"publish = 8086:8000\n")
	answers("8086")
	r.Run(t, "ip", "link", "del", "lan0")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil { // and lan0 is not there any more
		t.Fatal(err)
	}
	r.wait()
}

// A device that somebody takes out of its bridge is put back; one that somebody
// deletes, or whose bridge, is made again, with a new start of its vassal.
func TestKernelBridgePortThatIsLost(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{"blog": bridgedVassal, "shop": "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n"})
	blog, shop := r.reach("blog"), r.reach("shop")
	links := r.Run(t, "ip", "-o", "link")
	found := regexp.MustCompile(`\d+: (\S+)@.*alias fiefdom emperor vassal blog eth0`).FindStringSubmatch(links)
	if found == nil {
		t.Fatalf("no device of blog's:\n%s", links)
	}
	end := found[1]
	answers := func(s emperor.Status) {
		t.Helper()
		nettest.Eventually(t, patience, "an answer of "+s.Name, func() bool { return r.answers(s.Addresses[0]) })
	}
	r.Run(t, "ip", "link", "set", end, "nomaster")
	answers(blog)
	if flags := r.Run(t, "bridge", "-d", "link", "show", "dev", end); !strings.Contains(flags, "isolated on") {
		t.Errorf("it is back otherwise than it was:\n%s", flags)
	}
	if now := r.ps("blog"); now.PID != blog.PID {
		t.Errorf("blog was started anew: %+v", now)
	}
	r.Run(t, "ip", "link", "del", end)
	again := r.await("blog", "runs in another jail", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != blog.PID })
	answers(again)
	if now := r.ps("shop"); now.PID != shop.PID {
		t.Errorf("shop was started anew: %+v", now)
	}
	r.Run(t, "ip", "link", "del", "br0")
	for _, s := range []emperor.Status{again, shop} {
		answers(r.await(s.Name, "runs in another jail", func(now emperor.Status) bool { return now.State == emperor.Running && now.PID != s.PID }))
	}
	r.stop(syscall.SIGTERM)
}

// A bridge that the next emperor's ini declares no more isolates, whatever it did.
func TestKernelBridgeDeclaredNoMore(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork+"bridge = br0 10.100.0.1/24\nbridge-isolate = off\n", map[string]string{
		"blog": "[uwsgi]\nnetwork = bridge:br0 10.100.0.1/24\ncommand = AGENT\n",
		"shop": "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n",
	})
	blog, shop := r.reach("blog"), r.reach("shop")
	ping := "ping -c 1 -W 1 " + shop.Addresses[0].String()
	if out, err := r.sh(blog, ping); err != nil {
		t.Fatalf("not isolated, and not reached: %v\n%s", err, out)
	}
	r.die()
	r.write("/run/t/emperor.ini", noNetwork)
	r.start()
	nettest.Eventually(t, patience, "vassals that are kept apart", func() bool {
		blog = r.reach("blog")
		_, err := r.sh(blog, ping)
		return err != nil && r.answers(r.reach("shop").Addresses[0])
	})
	r.stop(syscall.SIGTERM)
}
