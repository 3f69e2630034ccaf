package main

import (
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// A pool that this host uses already is told of by check; the emperor's own
// device, while he runs, is not.
func TestCheckPoolsAgainstTheHost(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/clash.ini", strings.Replace(nativeNetwork, "10.9.0.1/16", "198.51.100.65/26", 1))
	out, code := r.run("check", "/run/t/clash.ini")
	if want := "/run/t/clash.ini:3: pool 198.51.100.64/26 overlaps the host's network 198.51.100.0/24 on "; code != exitOK || !strings.Contains(out, want) || !strings.Contains(out, "(warning)") {
		t.Errorf("exit code %d, want %q:\n%s", code, want, out)
	}
	r.drop("blog", agentIni)
	r.start()
	r.reach("blog")
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitOK || out != "" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
