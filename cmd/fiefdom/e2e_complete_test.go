package main

import (
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// What the shells' completion asks the program for.
func TestCompletionOfNames(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	r.drop("shop", agentIni+"tuntap-device-rule = out any 203.0.113.9 deny\n")
	r.start()
	r.reach("blog")
	r.reach("shop")
	for _, tt := range []struct {
		name string
		line []string
		want string
	}{
		{"a vassal", []string{"status", ""}, "blog\trunning\nshop\trunning\n:4\n"},
		{"a vassal to judge", []string{"security", ""}, "blog\trunning\nshop\trunning\n:4\n"},
		{"whose events", []string{"events", "blog", ""}, ":4\n"},
		{"one is enough", []string{"status", "blog", ""}, ":4\n"},
		{"further vassals", []string{"restart", "blog", ""}, "shop\trunning\n:4\n"},
		{"an ini", []string{"check", ""}, "ini\n:8\n"},
		{"an instance", []string{"ps", "--instance", ""}, "emperor\n:4\n"},
		{"a verb of rules", []string{"firewall", "re"}, "reload\tTake the chains that the emperor's ini has now\n:4\n"},
		{"whose rules", []string{"firewall", "list", ""}, "fief0\tnetwork\nblog\tvassal\nshop\tvassal\n:4\n"},
		{"which chain", []string{"firewall", "add", "fief0", ""}, "out\tfrom vassals\nin\ttowards vassals\n:4\n"},
		{"a rule of a network", []string{"firewall", "add", "fief0", "out", ""}, "allow\tlet pass\ndeny\tdrop\nreject\tdrop, and tell the sender\n:4\n"},
		{"a rule to delete", []string{"firewall", "del", "shop", "out", ""}, "1\tany 203.0.113.9 deny\nany\tany address\n:4\n"},
		{"what a vassal's rule does", []string{"firewall", "add", "shop", "out", "any", "any", ""}, "allow\tlet pass\ndeny\tdrop\nreject\tdrop, and tell the sender\n:4\n"},
		{"of none that runs", []string{"status", "--instance", "other", ""}, ":4\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := r.Try(t, "sh", append([]string{"-c", `exec fiefdom __complete "$@" 2>/dev/null`, "sh"}, tt.line...)...)
			if err != nil || out != tt.want {
				t.Errorf("%v: %q, want %q", err, out, tt.want)
			}
		})
	}
	r.stop(syscall.SIGTERM)
}
