package emperor

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// Which level a vassal has, by what its ini, the emperor's and its network say.
func TestResolveLevel(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		tyrant bool
		all    vassal.Level // of the emperor's ini
		want   vassal.Level
		fails  string
	}{
		"uWSGI's way":                           {text: "command = /bin/true", want: vassal.LevelCompat},
		"in a native network":                   {text: "tuntap-device-address = 10.9.0.7", want: vassal.LevelDefault},
		"without a network":                     {text: "network = none", want: vassal.LevelDefault},
		"on the host's network":                 {text: "network = host", want: vassal.LevelDefault},
		"a device that hooks configure":         {text: "tuntap-device = uwsgi0 /run/tun0.sock\nexec-as-root = ifconfig uwsgi0 10.9.0.7", want: vassal.LevelCompat},
		"a root of its own":                     {text: "tuntap-device-address = 10.9.0.7\nnamespace = /srv/root", want: vassal.LevelCompat},
		"what the kernel shows of us":           {text: "tuntap-device-address = 10.9.0.7\nchdir = /proc/self/fd/7", fails: "chdir = /proc/self/fd/7"},
		"a rootfs":                              {text: "rootfs = /srv/root", want: vassal.LevelDefault},
		"a rootfs as it is":                     {text: "rootfs = /srv/root\nconfine = compat", fails: "write namespace = DIRECTORY"},
		"the host's root beside it, confined":   {text: "tuntap-device-address = 10.9.0.7\npivot_root = /srv/root /srv/root/old\nconfine = default", fails: "write rootfs"},
		"a root of its own, confined":           {text: "tuntap-device-address = 10.9.0.7\nchroot = /srv/root\nconfine = default", want: vassal.LevelDefault},
		"an owner's":                            {text: "", tyrant: true, want: vassal.LevelDefault},
		"as it says":                            {text: "tuntap-device-address = 10.9.0.7\nconfine = compat", want: vassal.LevelCompat},
		"as it says, elsewhere":                 {text: "confine = strict", want: vassal.LevelStrict},
		"nothing":                               {text: "tuntap-device-address = 10.9.0.7\nconfine = none", want: vassal.LevelNone},
		"as the emperor says":                   {text: "tuntap-device-address = 10.9.0.7", all: vassal.LevelCompat, want: vassal.LevelCompat},
		"as the emperor says, elsewhere":        {text: "", all: vassal.LevelStrict, want: vassal.LevelStrict},
		"otherwise than the emperor says":       {text: "confine = compat", all: vassal.LevelStrict, want: vassal.LevelCompat},
		"an owner who asks for more":            {text: "confine = strict", tyrant: true, want: vassal.LevelStrict},
		"an owner who asks for less":            {text: "confine = compat", tyrant: true, fails: "an owner can only ask for more"},
		"an owner who asks for nothing":         {text: "confine = none", tyrant: true, fails: "an owner can only ask for more"},
		"an owner under an emperor who allows":  {text: "confine = compat", tyrant: true, all: vassal.LevelCompat, want: vassal.LevelCompat},
		"an owner under an emperor who does so": {text: "", tyrant: true, all: vassal.LevelNone, want: vassal.LevelNone},
		"another's namespaces":                  {text: "setns = /run/ns", want: vassal.LevelCompat},
		"another's namespaces, confined":        {text: "setns = /run/ns\nconfine = default", fails: "setns joins another's"},
		"another's, as the emperor says":        {text: "setns = /run/ns", all: vassal.LevelStrict, fails: "setns joins another's"},
		"another's, and less than it says":      {text: "setns = /run/ns\nconfine = compat", all: vassal.LevelStrict, want: vassal.LevelCompat},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t, twoNetworks()...)
			e.Config.Tyrant, e.Config.Confine = c.tyrant, c.all
			r, bad := e.resolve(goodVassal(t, "blog", c.text))
			if c.fails != "" {
				if bad == nil || !strings.Contains(bad.Message, c.fails) {
					t.Errorf("got %v", bad)
				}
				return
			}
			if bad != nil {
				t.Fatal(*bad)
			}
			if r.level != c.want || (r.plan.Confined != nil) != c.want.Full() {
				t.Errorf("got %s (%+v), want %s", r.level, r.plan.Confined, c.want)
			}
			if full := unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS; c.want.Full() && r.namespaces&uintptr(full) != uintptr(full) {
				t.Errorf("namespaces %#x", r.namespaces)
			}
			if bounded := r.plan.Bounded; bounded == (c.want == vassal.LevelNone) && c.want != vassal.LevelCompat {
				t.Errorf("bounded: %v", bounded)
			}
			if c.want.Full() && (r.plan.UID <= 0 && !c.tyrant) {
				t.Errorf("uid %d", r.plan.UID)
			}
		})
	}
}

// What an app may read, write and listen on follows from its ini.
func TestResolvePlacesOfTheApp(t *testing.T) {
	e := testEmperor(t, twoNetworks()...)
	e.Config.Monitors = []Monitor{{Dir: "/etc/vassals"}}
	r, bad := e.resolve(goodVassal(t, "blog", `tuntap-device-address = 10.9.0.7
command = /srv/blog/bin/serve --root=/srv/blog/pages -v
chdir = /srv/blog
env = STYLES=/srv/styles:/srv/fonts
writable = /srv/blog/data/
bind = /srv/shared:/run/shared:ro
publish = 8080:80
publish = 5353:53/udp
listen-ports = 9000,9001
`))
	if bad != nil {
		t.Fatal(*bad)
	}
	k := r.plan.Confined
	if !slices.Equal(k.Writable, []string{"/srv/blog/data"}) || !slices.Equal(k.Reads, []string{"/srv/blog", "/srv/blog/bin/serve"}) {
		t.Errorf("writes %v, reads %v", k.Writable, k.Reads)
	}
	if !slices.Equal(k.Named, []string{"/srv/styles", "/srv/fonts"}) { // all else is below chdir
		t.Errorf("named %v", k.Named)
	}
	if want := (vassal.Bind{Source: "/srv/shared", Target: "/run/shared", ReadOnly: true}); len(k.Binds) != 1 || k.Binds[0] != want {
		t.Errorf("binds %+v", k.Binds)
	}
	if !k.Counted || !slices.Equal(k.Ports, []uint16{9000, 9001}) {
		t.Errorf("ports %v, %v", k.Counted, k.Ports)
	}
	if !slices.Contains(k.Hidden, "/etc/vassals") {
		t.Errorf("hidden: %v", k.Hidden)
	}
}

// A port is published while the app runs: under default that is no other vassal.
func TestResolvePortsOfTheApp(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		counted bool
		want    []uint16
		warns   string
	}{
		"published":                    {"publish = 8080:80", false, nil, ""},
		"published, strictly":          {"publish = 8080-8081:80-81\npublish = 53:53/udp\nconfine = strict", true, []uint16{80, 81}, ""},
		"none, strictly":               {"confine = strict", true, nil, ""},
		"named":                        {"publish = 8080:80\nlisten-ports = 80, 9001", true, []uint16{80, 9001}, ""},
		"named beside those published": {"publish = 8080-8081:80-81\nlisten-ports = 80\nconfine = strict", true, []uint16{80}, "publish = 8080-8081:80-81/tcp: by listen-ports the app may not listen on 81"},
	} {
		t.Run(name, func(t *testing.T) {
			v := goodVassal(t, "blog", "tuntap-device-address = 10.9.0.7\n"+c.text)
			r, bad := testEmperor(t, twoNetworks()...).resolve(v)
			if bad != nil {
				t.Fatal(*bad)
			}
			if k := r.plan.Confined; k.Counted != c.counted || !slices.Equal(k.Ports, c.want) {
				t.Errorf("counted %v: %v", k.Counted, k.Ports)
			}
			if got := unlistened(v, r); len(got) != min(len(c.warns), 1) || got.Failed() || !strings.Contains(got.Error(), c.warns) {
				t.Errorf("it warns of %v, want %q", got, c.warns)
			}
		})
	}
}

// What an ini names in vain is told before a start fails.
func TestCheckTellsOfPlaces(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"tuntap-device-address = 10.9.0.7\nwritable = " + dir:                         "",
		"tuntap-device-address = 10.9.0.7\nwritable = " + dir + "/no":                 dir + "/no is not there",
		"tuntap-device-address = 10.9.0.7\nconfine = compat\nbind = /usr:/run/usr:ro": "bind does nothing under confine = compat",
	} {
		c := goodVassal(t, "blog", text)
		r, bad := testEmperor(t, twoNetworks()...).resolve(c)
		if bad != nil {
			t.Fatal(*bad)
		}
		got := unheeded(c, r.level)
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !got[0].Warning || got[0].Pos.Line == 0 || !strings.Contains(got[0].Message, want)) {
			t.Errorf("%s: %v", text, got)
		}
	}
}
