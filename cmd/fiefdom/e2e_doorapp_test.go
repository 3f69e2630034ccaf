package main

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// T19: an app meets nobody of the host's, and the emperor does not hear it, not even
// with the uid of its ini's owner, whose vassals it could stop: whether it finds the
// emperor's sockets, as where the operator confines it less, or not.
func TestAppCannotCallTheEmperor(t *testing.T) {
	t.Parallel()
	const owner = 2001
	users := []string{"", "unshare --user --map-root-user --net ", "unshare --user --map-user=2001 --net "}
	for level, c := range map[string]struct {
		ini, program string
		ways         []string // to another user namespace, and as it is
		refusal      string
	}{
		"compat":  {"", ownBinary(t), users, "in a jail"},
		"default": {"bind = /run/t/knock.py:ro\nbind = " + ownBinary(t) + ":/run/program/fiefdom:ro\n", "/run/program/fiefdom", users[:1], "no emperor"},
	} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", doorsEmperor+"emperor-tyrant = true\nconfine = "+level+"\n")
			r.writeAs(iniPath("blog"), agentIni+c.ini, owner, owner)
			r.writeAs(iniPath("shop"), agentIni, owner, owner)
			r.write("/run/t/knock.py", knocking)
			host, err := listenAbstract(r, "@host-service")
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			r.start()
			blog := r.reach("blog")
			r.reach("shop")
			as := []string{"setpriv", "--reuid", strconv.Itoa(owner), "--regid", strconv.Itoa(owner), "--clear-groups"}
			if out := r.Run(t, as[0], append(as[1:], "fiefdom", "ps")...); !strings.Contains(out, "shop") {
				t.Fatalf("the owner does not see his vassals:\n%s", out)
			}
			if out := r.mustSh(blog, "ss -Hxl; cat /proc/net/unix"); strings.Contains(out, "fiefdom") || strings.Contains(out, "@") || strings.Contains(out, "/run") {
				t.Errorf("it sees sockets:\n%s", out)
			}
			for _, how := range c.ways {
				for path := range ownDoors {
					out := r.mustSh(blog, how+"/usr/bin/python3 /run/t/knock.py 20 0 "+path)
					if !strings.HasSuffix(out, " 0\n") {
						t.Errorf("%s: somebody listens: %s", how, out)
					}
				}
				for _, command := range []string{"ps", "stop shop", "exec shop -- true"} {
					if out, err := r.sh(blog, how+c.program+" "+command+" --instance emperor"); err == nil || !strings.Contains(out, c.refusal) {
						t.Errorf("%s%s:\n%s", how, command, out)
					}
				}
			}
			if out, err := r.sh(blog, `/usr/bin/python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('\0host-service')"`); err == nil {
				t.Errorf("it has reached a service of the host's: %s", out)
			}
			if s := r.ps("shop"); s.State != emperor.Running || s.Restarts != 0 {
				t.Errorf("shop is %+v", s)
			}
		})
	}
}

func listenAbstract(r *realm, name string) (l net.Listener, err error) {
	r.Host.Do(r.t, func() { l, err = net.Listen("unix", name) })
	return l, err
}
