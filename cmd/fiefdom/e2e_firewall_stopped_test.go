package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// While the router is held up no rule is told to be in force that it may not have.
// Once it goes on, it has those that are listed, and a restart finds nothing broken.
func TestRulesOfARouterThatIsHeldUp(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"shop": agentIni, "blog": agentIni})
	r.inet(nettest.InetAddr4, nil)
	s, blog := r.reach("shop"), r.reach("blog")
	ns, router, inet := r.netOf(s), r.routerPID(), nettest.InetAddr4.String()

	r.signal(router, syscall.SIGSTOP)
	defer func() { _ = syscall.Kill(router, syscall.SIGCONT) }() // of a test that failed
	if out, code := r.run("firewall", "add", "shop", "out", "any", inet, "deny"); code != exitFailed || !strings.Contains(out, "the router does not answer") {
		t.Errorf("add: exit code %d\n%s", code, out)
	}
	// More than the connection takes while nobody reads it.
	var many strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&many, "tuntap-device-rule = out any 192.0.%d.%d deny\n", 2+i/250, i%250)
	}
	r.drop("blog", agentIni+many.String()+"tuntap-device-rule = out any "+inet+" deny\n")
	nettest.Eventually(t, patience, "the list says that the rules are not surely in force", func() bool {
		got := r.listed("blog")
		return strings.Contains(got, "blog eth0 out 2501 any "+inet+" deny - ") && strings.Contains(got, "blog eth0 out the router may have others: ")
	})
	r.signal(router, syscall.SIGCONT)

	settled := func(vassal string) {
		t.Helper()
		nettest.Eventually(t, patience, "the router has the rules of "+vassal, func() bool {
			return !strings.Contains(r.listed(vassal), "the router may have others")
		})
	}
	settled("shop")
	r.wantListed("\nshop eth0 out no rules\nshop eth0 in no rules\n", "shop")
	if !r.reaches(s) {
		t.Error("shop meets a rule that nobody lists")
	}
	r.sameJail(s, ns)
	settled("blog")
	if got := r.listed("blog"); !strings.Contains(got, "blog eth0 out 2501 any "+inet+" deny 0 ") {
		t.Errorf("the rule is not listed, but %d lines", strings.Count(got, "\n"))
	}
	if r.reaches(blog) {
		t.Error("blog does not meet the rule that is listed")
	}
	for _, vassal := range []string{"shop", "blog"} {
		r.mustRun("restart", vassal)
		now := r.reach(vassal)
		if r.reaches(now) != (vassal == "shop") {
			t.Errorf("after a restart %s meets other rules", vassal)
		}
	}
	if now := r.routerPID(); now != router {
		t.Errorf("the router was pid %d and is %d", router, now)
	}
}
