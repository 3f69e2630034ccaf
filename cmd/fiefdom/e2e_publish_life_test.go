package main

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// What is published goes with the jail: through an app's death and new ports,
// until the vassal is stopped or gone.
func TestPublishedAsLongAsTheVassal(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": publishIni("8080:8000", "8081:8000")})
	s := r.reach("blog")
	free := func(port string) bool {
		free := false
		r.Host.Do(t, func() {
			l, err := net.Listen("tcp", ":"+port)
			if free = err == nil; free {
				_ = l.Close()
			}
		})
		return free
	}
	if !r.open("8080") || !r.open("8081") || free("8080") {
		t.Fatal("it is not published")
	}
	// Other ports, and nothing else changed: the app and its connections go on.
	going, err := dialIn(r.Inet, "198.51.100.1:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer going.Close()
	r.drop("blog", publishIni("8081:8000", "8082:8000"))
	nettest.Eventually(t, patience, "the new ports are in force", func() bool { return r.open("8082") && !r.open("8080") && free("8080") })
	if now := r.ps("blog"); now.PID != s.PID || now.Restarts != 0 {
		t.Errorf("it was started anew for that: %+v", now)
	}
	if answer := askOn(t, going); answer != "198.51.100.2" {
		t.Errorf("a connection by a port that stays got %q", answer)
	}
	// One that is taken: what was published before goes on, and status says why.
	stop := r.listen("8083")
	r.drop("blog", publishIni("8081:8000", "8083:8000"))
	r.await("blog", "says that a port is taken", func(s emperor.Status) bool {
		return len(s.Warnings) > 0 && strings.Contains(s.Warnings[0], "not published: port 8083/tcp of the host is taken by agent (pid ")
	})
	if !r.open("8082") {
		t.Error("a port that is taken cost another one")
	}
	stop()
	nettest.Eventually(t, patience, "the port that has become free is published", func() bool { return r.open("8083") && !r.open("8082") })
	// The app dies.
	r.kill(r.ps("blog").PID)
	r.await("blog", "runs again", func(now emperor.Status) bool { return now.State == emperor.Running && now.PID != s.PID })
	nettest.Eventually(t, patience, "it answers again", func() bool { return r.open("8083") })
	// Stopped, and started.
	r.mustRun("stop", "blog")
	r.awaitState("blog", emperor.Stopped)
	nettest.Eventually(t, patience, "its ports are free", func() bool { return free("8081") && free("8083") })
	if left := r.Run(t, "iptables-save", "-t", "nat"); strings.Contains(left, "-j DNAT") {
		t.Errorf("rules of a vassal that is stopped:\n%s", left)
	}
	r.mustRun("start", "blog")
	nettest.Eventually(t, patience, "it answers again", func() bool { return r.open("8083") })
	r.remove("blog")
	nettest.Eventually(t, patience, "its ports are free", func() bool { return free("8081") && free("8083") })
}

// listen has an agent listen on a port of the host's, until it is stopped.
func (r *realm) listen(port string) (stop func()) {
	r.t.Helper()
	cmd := exec.Command("agent", port)
	r.Start(r.t, cmd)
	nettest.Eventually(r.t, patience, "a program listens", func() bool {
		_, err := peerBy(r.Host, "tcp", "127.0.0.1:"+port)
		return err == nil
	})
	return func() { _ = cmd.Process.Kill() }
}

func dialIn(ns *nettest.NS, address string) (c net.Conn, err error) {
	err = netns.Do(ns.Handle, func() error {
		c, err = net.DialTimeout("tcp", address, patience)
		return err
	})
	return c, err
}

// askOn asks an agent on a connection that is there.
func askOn(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(b[:n]), "\r\n\r\n")
	return body
}

// What is published outlives the emperor and the router: connections go on, new
// ones come, and nobody takes the port while there is no emperor.
func TestPublishedWithoutAnEmperor(t *testing.T) {
	t.Parallel()
	// More ports than one key of the vault's takes.
	r := newRealm(t, dualNetwork, map[string]string{"blog": publishIni("8080:8000", "8080:8000/udp", "10000-10999:8000-8999")})
	s := r.reach("blog")
	going, err := dialIn(r.Inet, "198.51.100.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer going.Close()
	works := func(when string) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			for _, address := range []string{"198.51.100.1:8080", "[2001:db8:198::1]:8080"} {
				if got, err := peerBy(r.Inet, network, address); err != nil {
					t.Errorf("%s: %s %s: %q, %v", when, network, address, got, err)
				}
			}
		}
		if answer := askOn(t, going); answer != "198.51.100.2" {
			t.Errorf("%s: the connection of before got %q", when, answer)
		}
		r.Host.Do(t, func() {
			for _, port := range []string{":8080", ":10000", ":10999"} {
				if l, err := net.Listen("tcp", port); err == nil {
					_ = l.Close()
					t.Errorf("%s: anybody can have port %s", when, port)
				}
			}
		})
	}
	works("before")
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.wait()
	works("without an emperor")
	r.start()
	r.awaitState("blog", emperor.Running)
	works("adopted")
	r.killRouter()
	nettest.Eventually(t, patience, "the next router serves", func() bool { _, err := peerBy(r.Inet, "tcp", "198.51.100.1:8080"); return err == nil })
	works("with the next router")
	r.mustRun("upgrade")
	works("after an upgrade")
	if now := r.ps("blog"); now.PID != s.PID || len(now.Published) != 6 {
		t.Errorf("%+v", now)
	}
}
