package tuntap

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
)

func deviceRules(t *testing.T, texts ...string) (rules []DeviceRule) {
	t.Helper()
	for i, text := range texts {
		r, err := ParseDeviceRule(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Rule.File, r.Rule.Line = "blog.ini", i+1
		rules = append(rules, r)
	}
	return rules
}

// What a block says is what the rules say, for every packet that it is asked about.
func TestRuleBlockSaysWhatTheRulesSay(t *testing.T) {
	rules := deviceRules(t,
		"out 10.9.0.7 198.51.100.9 deny", "in 0.0.0.0 10.9.0.7 allow", "in 10.9.0.0/16 any deny",
		"out any 10.9.0.0/24 allow", "out any any deny", "in 198.51.100.7/31 0.0.0.0 allow")
	b, err := encodeRuleBlock(rules)
	if err != nil || len(b) != len(rules)*blockRuleSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	block := parseRuleBlock(b)
	var chains [2][]firewall.Rule
	for _, r := range rules {
		chains[r.Direction] = append(chains[r.Direction], r.Rule)
	}
	for _, dir := range []firewall.Direction{firewall.In, firewall.Out} {
		chain := firewall.NewChain(chains[dir])
		for _, src := range []string{"10.9.0.7", "10.9.0.8", "10.9.1.8", "198.51.100.6", "198.51.100.7", "198.51.100.9"} {
			for _, dst := range []string{"10.9.0.7", "10.9.0.8", "10.9.1.8", "198.51.100.9", "10.8.0.1"} {
				f := firewall.Flow{Src: prefixes(src + "/32")[0].Addr(), Dst: prefixes(dst + "/32")[0].Addr(), Proto: protoUDP}
				action, _ := chain.Verdict(&f)
				if got, want := block.denies(dir, &f, false), action != firewall.Allow; got != want {
					t.Errorf("%v %s to %s: the block denies %v, the rules %v", dir, src, dst, got, want)
				}
			}
		}
	}
}

func TestRulesThatNoBlockCanSay(t *testing.T) {
	for text, want := range map[string]string{
		"out any any reject":     "blog.ini:1: a foreign router knows allow and deny, not reject",
		"out any fd09::/64 deny": "blog.ini:1: fd09::/64: a foreign router takes rules for IPv4 only",
		"out :: any deny":        "IPv4 only",
	} {
		if _, err := encodeRuleBlock(deviceRules(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	many := Greeting{Rules: deviceRules(t, strings.Split(strings.Repeat("out any 10.9.0.1 deny;", 342)+"in any any deny", ";")...)}
	if err := many.Check(); err == nil || !strings.Contains(err.Error(), "takes 341") {
		t.Errorf("343 rules: %v", err)
	}
}

// A greeting is what uWSGI's device says, with the ids of the vassal.
func TestGreetingOnTheWire(t *testing.T) {
	nettest.Root(t) // to speak for others
	nettest.NoLeaks(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	router, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer router.Close()
	raw, err := router.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	g := Greeting{Rules: deviceRules(t, "out 10.9.0.7 198.51.100.9 deny"), Credentials: true, UID: 2001, GID: 2002}
	if err := g.Send(conn, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	first, oob := make([]byte, 100), make([]byte, 100)
	n, oobn, _, _, err := router.ReadMsgUnix(first, oob)
	if err != nil || string(first[:n]) != hello {
		t.Fatalf("%q, %v", first[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	ids, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil || ids.Uid != 2001 || ids.Gid != 2002 || int(ids.Pid) != os.Getpid() {
		t.Errorf("credentials %+v, %v", ids, err)
	}
	rest, err := io.ReadAll(router)
	if err != nil || len(rest) != frameHeader+blockRuleSize || rest[3] != kindRules || int(binary.LittleEndian.Uint16(rest[1:])) != blockRuleSize {
		t.Fatalf("% x, %v", rest, err)
	}
	block := parseRuleBlock(rest[frameHeader:])
	f := firewall.Flow{Src: blog, Dst: prefixes("198.51.100.9/32")[0].Addr()}
	if !block.denies(firewall.Out, &f, false) || block.denies(firewall.In, &f, false) {
		t.Errorf("rules %+v", block)
	}
}
