package emperor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/vassal"
)

// Nobody's app gets anything of the emperor's folders and sockets, and an owner's
// nothing that they are in, none of the host's devices, and no ini of another's.
func TestResolveKeepsTheEmperorsFolders(t *testing.T) {
	shared := t.TempDir()
	inis := filepath.Join(shared, "inis")
	if err := os.MkdirAll(filepath.Join(inis, "shop"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(inis, "other.ini"), "")
	for text, want := range map[string]struct{ owners, roots bool }{ // whether it is good
		"bind = /run/fiefdom/test":               {false, false},
		"bind = /run/fiefdom/another:/tmp/x:ro":  {false, false},
		"bind = /run/fiefdom:/tmp/x":             {false, false},
		"bind = /var/lib/elsewhere/leases.json":  {false, false},
		"bind = /run/tun0":                       {false, false},
		"writable = /var/lib/fiefdom/x":          {false, false},
		"writable = /run/../var/lib/elsewhere":   {false, false},
		"chdir = /run/fiefdom/test":              {false, true},
		"rootfs = /run/fiefdom/test":             {false, false},
		"rootfs = /var/lib\nuserns = auto":       {false, true},
		"rootfs = " + shared + "\nuserns = auto": {false, true},
		"bind = /run:/tmp/run:ro":                {false, true}, // what is not to be seen is masked there
		"writable = /var/lib":                    {false, true},
		"bind = /dev":                            {false, true},
		"bind = /dev/fuse":                       {false, true},
		"bind = " + inis + ":ro":                 {false, true},
		"bind = " + shared + ":ro":               {false, true},
		"bind = " + inis + "/other.ini:ro":       {false, true},
		"bind = /srv/owners/bob/web.ini:/tmp/x":  {false, true}, // of another owner, by a pattern
		"bind = /srv/owners:ro":                  {false, true},
		"bind = /srv/owners/alice:ro":            {true, true},
		"writable = " + inis + "/shop":           {true, true}, // no place of inis
		"bind = /run/postgresql":                 {true, true},
		"bind = /srv/alice/run/fiefdom:/tmp/run": {true, true},
	} {
		for _, tyrant := range []bool{true, false} {
			e := testEmperor(t, twoNetworks()...)
			e.Config.Tyrant, e.Instance = tyrant, &Instance{Runtime: "/run/fiefdom/test", State: "/var/lib/elsewhere"}
			e.Config.Monitors = []Monitor{{Dir: inis}}
			e.vassals = map[string]*member{"web": {name: "web", file: iniFile{path: "/srv/owners/bob/web.ini", owner: owner{1501, 1501}}}}
			c := goodVassal(t, "blog", text+"\ntuntap-device-address = 10.9.0.7\n")
			c.UID = &vassal.Identity{Name: "1500", ID: 1500, Main: 1500}
			_, bad := e.resolve(c)
			if good := want.roots && !tyrant || want.owners && tyrant; (bad == nil) != good {
				t.Errorf("%s, tyrant %v: %v", text, tyrant, bad)
			}
			if way := "write confine = compat"; bad != nil && strings.Contains(bad.Message, way) == tyrant {
				t.Errorf("%s, tyrant %v: %s", text, tyrant, bad.Message)
			}
		}
	}
}
