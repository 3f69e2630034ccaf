package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// ruledIni is an agent with a device rule that decides nothing it needs.
const ruledIni = agentIni + "tuntap-device-address = auto\ntuntap-device-rule = out any 203.0.113.0/24 deny\n"

// held is a TCP connection to an agent that is never begun anew.
type held struct {
	net.Conn
	answers *bufio.Reader
}

func (r *realm) hold(addr netip.Addr) *held {
	r.t.Helper()
	var c net.Conn
	r.Host.Do(r.t, func() {
		var err error
		if c, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 8000).String(), patience); err != nil {
			r.t.Fatal(err)
		}
	})
	r.t.Cleanup(func() { c.Close() })
	h := &held{c, bufio.NewReader(c)}
	if err := h.try(patience); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// try asks the agent once more by the same connection.
func (h *held) try(within time.Duration) error {
	if err := h.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(h, "GET / HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(h.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = bufio.NewReader(resp.Body).WriteTo(discard{})
	return err
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// reaches says whether a vassal reaches the internet now.
func (r *realm) reaches(s emperor.Status) bool {
	_, err := r.sh(s, "curl -s -m 1 http://"+nettest.InetAddr4.String()+"/")
	return err == nil
}

// sameJail fails the test if a vassal is not what it was: its process, its jail.
func (r *realm) sameJail(before emperor.Status, ns string) {
	r.t.Helper()
	now := r.ps(before.Name)
	if now.PID != before.PID || now.Restarts != before.Restarts || now.State != emperor.Running || r.netOf(now) != ns {
		r.t.Errorf("%s was pid %d, it is pid %d (%s), its jail was %s and is %s", before.Name, before.PID, now.PID, now.State, ns, r.netOf(now))
	}
}

func (r *realm) netOf(s emperor.Status) string {
	r.t.Helper()
	return strings.TrimSpace(r.Run(r.t, "readlink", fmt.Sprintf("/proc/%d/ns/net", s.PID)))
}

func TestRulesOfAnIniChangeUnderWhatRuns(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"shop": ruledIni})
	r.inet(nettest.InetAddr4, nil)
	s := r.reach("shop")
	ns, c := r.netOf(s), r.hold(s.Addresses[0])
	if !r.reaches(s) {
		t.Fatal("the internet does not answer")
	}
	shut := ruledIni + "tuntap-device-rule = out any " + nettest.InetAddr4.String() + " deny\n"
	for round, change := range []struct {
		ini  string
		open bool
		pids int
	}{{shut, false, 0}, {ruledIni, true, 0}, {shut + "limit-pids = 500\n", false, 500}, {shut + "limit-pids = 400\n", false, 400}} {
		r.drop("shop", change.ini)
		nettest.Eventually(t, patience, "the rule is in force", func() bool { return r.reaches(s) == change.open })
		r.await("shop", "has the limit", func(s emperor.Status) bool {
			return change.pids == 0 && s.Limits == nil || s.Limits != nil && s.Limits.PIDs == change.pids
		})
		if err := c.try(patience); err != nil {
			t.Fatalf("round %d: the connection did not live on: %v", round, err)
		}
		r.sameJail(s, ns)
	}
	// What the rules do not take away is there for the next generation, in the same jail.
	r.mustRun("restart", "shop")
	s = r.reach("shop")
	if r.reaches(s) {
		t.Error("the rule went with the generation")
	}
}
