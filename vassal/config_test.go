package vassal

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// parse reads a vassal's ini as the expander does.
func parse(t *testing.T, text string) (*Config, ini.Errors) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blog.ini")
	if err := os.WriteFile(path, []byte("[uwsgi]\n"+text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ini.Load(path, ini.Options{IsOption: Known})
	if err != nil {
		t.Fatal(err)
	}
	return Parse("blog", f)
}

func good(t *testing.T, text string) *Config {
	t.Helper()
	c, errs := parse(t, text)
	if len(errs) > 0 {
		t.Fatalf("%q: %v", text, errs)
	}
	return c
}

func TestParseGood(t *testing.T) {
	mask := 0o27
	for name, tc := range map[string]struct {
		text string
		got  func(*Config) any
		want any
	}{
		"command":       {"command = /bin/app 'a b' c", func(c *Config) any { return c.Command }, []string{"/bin/app", "a b", "c"}},
		"patch alias":   {"unprivileged-binary-patch-arg = /bin/app x", func(c *Config) any { return c.Command }, []string{"/bin/app", "x"}},
		"patch, one":    {"privileged-binary-patch = /bin/my app", func(c *Config) any { return append(c.Command[:2:2], filepath.Base(c.Command[2])) }, []string{"/bin/my app", "--ini", "blog.ini"}},
		"attach-daemon": {"attach-daemon = app; b", func(c *Config) any { return c.Attached[0].Command }, "app; b"},
		"last wins":     {"command = a\ncommand = b", func(c *Config) any { return c.Command }, []string{"b"}},
		"uid number":    {"command = a\nuid = 12345", func(c *Config) any { return c.UID.ID }, 12345},
		"uid name":      {"command = a\nuid = nobody", func(c *Config) any { return c.UID.Home }, "/nonexistent"},
		"gid number":    {"command = a\ngid = 77", func(c *Config) any { return c.GID.ID }, 77},
		"add-gid":       {"command = a\nadd-gid = 77\nadd-gid = 78", func(c *Config) any { return len(c.AddGID) }, 2},
		"cap":           {"command = a\ncap = CAP_NET_BIND_SERVICE,net_raw", func(c *Config) any { return c.Cap }, []string{"net_bind_service", "net_raw"}},
		"cap, none":     {"command = a\ncap =", func(c *Config) any { return c.CapSet && len(c.Cap) == 0 }, true},
		"chdir":         {"command = a\nchdir = /srv//app/", func(c *Config) any { return c.Chdir }, "/srv/app"},
		"unshare":       {"command = a\nunshare = ipc,uts\nunshare2 = net, sysvsem", func(c *Config) any { return c.Isolation.Namespaces() }, uintptr(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET)},
		"pivot_root":    {"command = a\npivot-root = /ns/ /ns/.old_root", func(c *Config) any { return c.Isolation.PivotRoot + " " + c.Isolation.PivotOld }, "/ns /ns/.old_root"},
		"namespace":     {"command = a\nns = /ns/001:my.host", func(c *Config) any { return c.Isolation.Root + " " + c.Isolation.Hostname }, "/ns/001 my.host"},
		"keep-mount": {"command = a\nnamespace-keep-mount = /apps/app1/nfs\nns-keep-mount = /mnt/nfs1:/nfs\nns-keep-mount = /srv\nnamespace = /apps/app1", func(c *Config) any {
			i := c.Isolation
			return i.Keep[0].target(i.Root) + i.Keep[1].Source + i.Keep[1].target(i.Root) + i.Keep[2].target(i.Root)
		}, "/nfs/mnt/nfs1/nfs/srv"},
		"cgroup":        {"command = a\ncgroup = /sys/fs/cgroup/a\ncgroup-opt = cpu.weight=50\ncgroup-dir-mode = 755", func(c *Config) any { return c.Isolation.RootOnly() }, []string{"cgroup", "cgroup-dir-mode", "cgroup-opt"}},
		"limits":        {"command = a\nlimit-as = 64\nlimit-nproc = 5\nmax-fd = 6\nprio = -7", func(c *Config) any { return c.Limits }, Limits{Memory: 64, Processes: 5, Files: 6, Nice: -7}},
		"cap number":    {"command = a\ncap = 13", func(c *Config) any { return c.Cap }, []string{"net_raw"}},
		"chroot":        {"command = a\nchroot = /srv", func(c *Config) any { return c.Chroot }, "/srv"},
		"logto":         {"command = a\nlogto = /var/log/a", func(c *Config) any { return c.LogTo }, "/var/log/a"},
		"binary-path":   {"psgi = a\nbinary-path = /opt/uwsgi", func(c *Config) any { return c.Args()[0] }, "/opt/uwsgi"},
		"env":           {"command = a\nenv = A=1\nenv = B=x=y", func(c *Config) any { return c.Env }, []string{"A=1", "B=x=y"}},
		"umask":         {"command = a\numask = 027", func(c *Config) any { return *c.Umask }, mask},
		"jailed":        {"command = a\njailed = true", func(c *Config) any { return c.Jailed }, true},
		"stop by name":  {"command = a\nstop-signal = sigquit", func(c *Config) any { return c.Signal() }, syscall.SIGQUIT},
		"stop by num":   {"command = a\nstop-signal = 10", func(c *Config) any { return c.Signal() }, syscall.Signal(10)},
		"stop, none":    {"command = a", func(c *Config) any { return c.Signal() }, syscall.SIGTERM},
		"stop of uwsgi": {"psgi = a.pl", func(c *Config) any { return c.Signal() }, syscall.SIGINT},
		"mercy":         {"command = a\nreload-mercy = 500ms", func(c *Config) any { return c.ReloadMercy }, 500 * time.Millisecond},
		"mercy, none":   {"command = a", func(c *Config) any { return c.ReloadMercy }, DefaultMercy},
		"mercy, said":   {"command = a\nreload-mercy = 10", func(c *Config) any { return c.MercySet }, true},
		"speaks":        {"command = a\nemperor-protocol = true", func(c *Config) any { return c.Speaks() }, true},
		"speaks not":    {"command = a", func(c *Config) any { return c.Speaks() }, false},
		"uwsgi speaks":  {"psgi = a.pl", func(c *Config) any { return c.Speaks() }, true},
		"uwsgi, mute":   {"psgi = a.pl\nemperor-protocol = false", func(c *Config) any { return c.Speaks() }, false},
		"device":        {"command = a\ntuntap-device = uwsgi0 /run/s", func(c *Config) any { return c.Devices[0].Name + c.Devices[0].Socket }, "uwsgi0/run/s"},
		"auto":          {"command = a\ntuntap-device-address = auto", func(c *Config) any { return c.Devices[0].Auto && c.Devices[0].Name == DefaultDevice }, true},
		"addresses": {
			"command = a\ntuntap-device-address = 10.9.0.7, fd00::7", func(c *Config) any { return c.Devices[0].Addresses },
			[]netip.Addr{netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd00::7")},
		},
		"gateway":       {"command = a\ntuntap-device-gateway = 10.9.0.1", func(c *Config) any { return c.Devices[0].Gateways[0].String() }, "10.9.0.1"},
		"mtu":           {"command = a\ntuntap-device-mtu = 1400", func(c *Config) any { return c.Devices[0].MTU }, 1400},
		"rule":          {"command = a\ntuntap-device = u0\ntuntap-device-rule = out 0.0.0.0 10.0.0.0/8 deny", func(c *Config) any { return c.Devices[0].Rules[0].Rule.Dst.String() }, "10.0.0.0/8"},
		"rule's place":  {"command = a\ntuntap-device = u0\ntuntap-device-rule = out 0.0.0.0 10.0.0.0/8 deny", func(c *Config) any { return c.Devices[0].Rules[0].Rule.Line }, 4},
		"rule's target": {"command = a\ntuntap-device = u0\ntuntap-device-rule = out 0.0.0.0 10.10.0.0/16 gateway 198.51.100.2:4040", func(c *Config) any { return c.Devices[0].Rules[0].Target.String() }, "198.51.100.2:4040"},
		"rule belongs":  {"command = a\ntuntap-device = u0\ntuntap-device = u1\ntuntap-device-rule = in 0.0.0.0 10.0.0.1 allow", func(c *Config) any { return len(c.Devices[1].Rules) }, 1},
		"hook":          {"command = a\nhook-as-root = !exec:secret", func(c *Config) any { return c.Hooks[0].String() }, "exec"},
		"needless":      {"command = a\nmaster = true\nprocesses = 4", func(c *Config) any { return c.Needless }, []string{"master", "processes"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good(t, tc.text)
			if got := tc.got(c); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			// It crosses to the emperor as JSON.
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			var back Config
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if got := tc.got(&back); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("after the crossing: got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestParseBad(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int // of the error; 0: the file's
		want string
	}{
		"nothing":          {"uid = 5", 0, "nothing to run"},
		"only needless":    {"master = true\nplugins = tuntap", 0, "nothing to run"},
		"command, quotes":  {"command = 'a", 2, "quote as in a shell"},
		"command, empty":   {"command =", 2, "empty command"},
		"uid, nobody's":    {"command = a\nuid = no-such-user", 3, "adduser --system no-such-user"},
		"uid -1":           {"command = a\nuid = 4294967295", 3, "no number of a user"},
		"uid wraps to 0":   {"command = a\nuid = 4294967296", 3, "no number of a user"},
		"uid, negative":    {"command = a\nuid = -1", 3, "no user"},
		"gid, nobody's":    {"command = a\ngid = no-such-group", 3, "addgroup --system no-such-group"},
		"gid -1":           {"command = a\ngid = 4294967295", 3, "no number of a user or group"},
		"add-gid wraps":    {"command = a\nadd-gid = 4294967296", 3, "no number of a user or group"},
		"cap":              {"command = a\ncap = fly", 3, `unknown capability "fly"`},
		"chdir":            {"command = a\nchdir = here", 3, "absolute path"},
		"chroot":           {"command = a\nchroot = here", 3, "absolute path"},
		"logto":            {"command = a\nlogto = here", 3, "absolute path"},
		"binary-path":      {"command = a\nbinary-path = here", 3, "absolute path"},
		"env":              {"command = a\nenv = A", 3, "NAME=VALUE"},
		"env, no name":     {"command = a\nenv = =1", 3, "NAME=VALUE"},
		"umask":            {"command = a\numask = 9", 3, "octal"},
		"umask, a rest":    {"command = a\numask = 022x", 3, "octal"},
		"umask, too much":  {"command = a\numask = 1777", 3, "octal"},
		"stop-signal":      {"command = a\nstop-signal = HALT", 3, "unknown signal"},
		"stop-signal 65":   {"command = a\nstop-signal = 65", 3, "unknown signal"},
		"reload-mercy":     {"command = a\nreload-mercy = soon", 3, "is no time"},
		"mercy, endless":   {"command = a\nreload-mercy = 10000h", 0, "at most 1h"},
		"device, words":    {"command = a\ntuntap-device = a b c", 3, "DEVICE [SOCKET]"},
		"device, long":     {"command = a\ntuntap-device = sixteen-letters-", 3, "no device name"},
		"device, pattern":  {"command = a\ntuntap-device = tun%d", 0, "no device name"},
		"device, loopback": {"command = a\ntuntap-device = lo", 3, "every namespace has one"},
		"device, twice":    {"command = a\ntuntap-device = u0\ntuntap-device = u0", 4, "already declared at"},
		"address":          {"command = a\ntuntap-device-address = here", 3, "neither an address"},
		"address, prefix":  {"command = a\ntuntap-device-address = 10.9.0.7/16", 3, "10.9.0.7"},
		"address, twice":   {"command = a\ntuntap-device-address = 10.9.0.7 10.9.0.7", 3, "declared twice"},
		"address, mapped":  {"command = a\ntuntap-device-address = ::ffff:10.9.0.7", 3, "cannot be a device's address"},
		"address, local":   {"command = a\ntuntap-device-address = 127.0.0.1", 3, "cannot be a device's address"},
		"gateway":          {"command = a\ntuntap-device-gateway = here", 3, "is no address"},
		"gateways":         {"command = a\ntuntap-device-gateway = 10.9.0.1\ntuntap-device-gateway = 10.9.0.2", 3, "two gateways"},
		"mtu":              {"command = a\ntuntap-device-mtu = 100", 3, "is no MTU"},
		"mtu, big":         {"command = a\ntuntap-device-mtu = 65536", 3, "is no MTU"},
		"rule":             {"command = a\ntuntap-device-rule = out 0.0.0.0 10.0.0.1 dney", 3, `unknown action "dney"`},
		"hook":             {"command = a\nhook-as-root = fly:away", 3, `unknown action "fly"`},
		"hook's call":      {"command = a\nhook-in-jail = call:f", 3, "which alone has C functions"},
		"call":             {"command = a\ncall-pre-jail = f", 3, "write exec-pre-jail = COMMAND"},
		"unshare":          {"command = a\nunshare = fs,time", 3, `unknown namespace "time"`},
		"unshare, parent":  {"command = a\nunshare = parent", 3, `unknown namespace "parent"`},
		"pivot_root":       {"command = a\npivot_root = /new", 3, "want NEW OLD"},
		"pivot_root, out":  {"command = a\npivot_root = /new /old", 3, "below the first"},
		"namespace":        {"command = a\nnamespace = srv", 3, "absolute path"},
		"namespace, /":     {"command = a\nnamespace = //:x", 3, "the host's root"},
		"keep, no root":    {"command = a\nnamespace-keep-mount = /a", 3, "without namespace"},
		"setns":            {"command = a\nsetns = @abstract", 3, "absolute path"},
		"cgroup":           {"command = a\ncgroup = here", 3, "absolute path"},
		"cgroup-opt":       {"command = a\ncgroup = /a\ncgroup-opt = ../b=1", 4, "FILE=VALUE"},
		"cgroup-dir-mode":  {"command = a\ncgroup-dir-mode = rwx", 3, "octal"},
		"max-fd":           {"command = a\nmax-fd = 0", 3, "want a number from 1"},
		"prio":             {"command = a\nprio = 20", 3, "from -20 to 19"},
		"hook phase":       {"command = a\nstrict = true\nhook-as-rot = exec:a", 4, "unknown option"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := parse(t, tc.text)
			if !errs.Failed() {
				t.Fatal("no error")
			}
			for _, err := range errs {
				if strings.Contains(err.Message, tc.want) {
					if err.Pos.Line != tc.line && (tc.line != 0 || err.Pos.Line != 3) {
						t.Errorf("at line %d, want %d: %v", err.Pos.Line, tc.line, err)
					}
					if filepath.Base(err.Pos.File) != "blog.ini" {
						t.Errorf("in %q: %v", err.Pos.File, err)
					}
					return
				}
			}
			t.Errorf("none says %q: %v", tc.want, errs)
		})
	}
}

func TestParseTellsAllErrors(t *testing.T) {
	_, errs := parse(t, "command = 'a\nuid = no-such-user\numask = 9\ntuntap-device-mtu = 1")
	lines := map[int]bool{}
	for _, err := range errs {
		lines[err.Pos.Line] = true
	}
	for _, line := range []int{2, 3, 4, 5} {
		if !lines[line] {
			t.Errorf("nothing about line %d: %v", line, errs)
		}
	}
}

func TestUnknownOption(t *testing.T) {
	_, errs := parse(t, "command = a\ntuntap-devce = u0")
	if errs.Failed() || len(errs) != 1 || !strings.Contains(errs[0].Message, `did you mean "tuntap-device"?`) {
		t.Errorf("%v", errs)
	}
}

// What only a uwsgi would do is left to it, and missed where there is none.
func TestHooksOfTheApp(t *testing.T) {
	const phases = "hook-post-app = print:hi\nexec-as-user-atexit = true\nexec-as-user = true"
	c, errs := parse(t, "command = a\n"+phases)
	if errs.Failed() || len(errs) != 2 || !strings.Contains(errs[0].Message, "hook-post-app never runs") || errs[1].Pos.Line != 4 || len(c.Hooks) != 1 {
		t.Errorf("%v, %v", errs, c.Hooks)
	}
	c = good(t, "psgi = a\ncall-as-user = f\n"+phases)
	if got := strings.Join(c.Args(), " "); !strings.HasSuffix(got, "--set call-as-user=f --set hook-post-app=print:hi --set exec-as-user-atexit=true") {
		t.Errorf("got %q", got)
	}
}

func TestArgsOfUWSGI(t *testing.T) {
	c := good(t, "psgi = app.pl\nplugins = tuntap\nplugins = psgi\nuid = 5\ntuntap-device = u0\nprocesses = 2\nhook-as-root = exec:true")
	want := []string{"uwsgi", "--set", "master=true", "--set", "psgi=app.pl", "--set", "plugins=psgi", "--set", "processes=2"}
	if got := c.Args(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c = good(t, "wsgi-file = a.py\nmaster = false")
	if got := c.Args(); reflect.DeepEqual(got[1:3], []string{"--set", "master=true"}) {
		t.Errorf("a master was added: %q", got)
	}
	if got := good(t, "psgi = app.pl\ncommand = a").App; got != nil {
		t.Errorf("a command beside app-server options: %v", got)
	}
}
