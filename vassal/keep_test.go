package vassal

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/internal/vault"
	"fiefdom/tuntap"
)

// passOn is what a record is to the next emperor.
func passOn[T any](t *testing.T, record T) (next T) {
	t.Helper()
	b, err := json.Marshal(record)
	if err == nil {
		err = json.Unmarshal(b, &next)
	}
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// adopt makes of a generation one as the next emperor has it.
func adopt(t *testing.T, j *Jail, g *Generation) *Generation {
	t.Helper()
	var files vault.Files
	defer files.Close()
	r, err := g.Keep(&files)
	if err != nil {
		t.Fatal(err)
	}
	next, err := j.Restore(passOn(t, r), &files, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Kill(); next.Wait() })
	return next
}

// The next emperor hears how the app ended, whether its parent has waited for it
// or not, and can signal it, kill it, and its children.
func TestAdoptedGenerationsEnd(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	for name, tc := range map[string]struct {
		script string
		reaper bool
		act    func(*Generation) error
		want   Exit
	}{
		"exit code":                {script: "read x; exit 7", want: Exit{Code: 7}},
		"well":                     {script: "read x; true", want: Exit{}},
		"signal":                   {script: "exec sleep 1000", act: func(g *Generation) error { return g.Signal(syscall.SIGUSR1) }, want: Exit{Signal: syscall.SIGUSR1}},
		"kill":                     {script: "trap '' TERM; sleep 1000", act: func(g *Generation) error { g.Kill(); return nil }, want: Exit{Signal: syscall.SIGKILL}},
		"exit code behind reaper":  {script: "read x; exit 7", reaper: true, want: Exit{Code: 7}},
		"signal behind the reaper": {script: "exec sleep 1000", reaper: true, act: func(g *Generation) error { return g.Signal(syscall.SIGUSR1) }, want: Exit{Signal: syscall.SIGUSR1}},
	} {
		for _, waited := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", waited for", false: ", a zombie"}[waited], func(t *testing.T) {
				in, go_, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				l := Launch{Plan: planOf(tc.script), Stdin: in}
				if l.Cgroup, err = newCgroup(t).Make("g"); err != nil {
					t.Fatal(err)
				}
				if tc.reaper {
					l.Plan.Reaper, l.Plan.Mounts, l.Plan.Proc, l.Namespaces = true, true, true, unix.CLONE_NEWPID|unix.CLONE_NEWNS
				}
				s := startApp(t, j, l)
				in.Close()
				next := adopt(t, j, s.Generation)
				if next.PID != s.PID || next.Cgroup() != s.Cgroup() || next.Started.Sub(s.Started).Abs() > 1e9 {
					t.Errorf("it is %+v, was %+v", next, s.Generation)
				}
				if tc.act != nil {
					if err := tc.act(next); err != nil {
						t.Fatal(err)
					}
				}
				go_.Close()
				if waited {
					s.Generation.Wait()
				}
				if exit := next.Wait(); exit != tc.want {
					t.Errorf("%v, want %v", exit, tc.want)
				}
				if err := next.Signal(syscall.SIGTERM); err != nil {
					t.Errorf("a signal to who has ended: %v", err)
				}
				next.Kill()
			})
		}
	}
}

// A generation that has ended cannot be kept, nor one restored without what it
// needs; nothing of the attempt is left.
func TestWhatCannotBeAdopted(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	s := startApp(t, j, Launch{Plan: planOf("exec sleep 1000")})
	before := nettest.OpenFiles(t, os.Getpid())
	for name, spoil := range map[string]func(*GenerationRecord, *vault.Files){
		"no process":      func(_ *GenerationRecord, f *vault.Files) { f.Take("process").Close() },
		"no namespace":    func(r *GenerationRecord, _ *vault.Files) { r.Ground, r.Namespaces = true, 1 },
		"no root":         func(r *GenerationRecord, _ *vault.Files) { r.Ground = true },
		"nothing to give": func(r *GenerationRecord, _ *vault.Files) { r.Served = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			var files vault.Files
			r, err := s.Keep(&files)
			if err != nil {
				t.Fatal(err)
			}
			spoil(&r, &files)
			if g, err := j.Restore(r, &files, nil, nil); err == nil {
				t.Errorf("restored %+v", g)
			}
			files.Close()
			if now := nettest.OpenFiles(t, os.Getpid()); now != before {
				t.Errorf("%d descriptors, were %d", now, before)
			}
		})
	}
	s.Kill()
	s.Wait()
	var files vault.Files
	if _, err := s.Keep(&files); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kept who has ended: %v", err)
	}
	files.Close()
}

// An adopted jail is the same namespace with the same devices, and what was
// asked for them is unchanged by its way through the record.
func TestAdoptedJails(t *testing.T) {
	rule, err := tuntap.ParseDeviceRule("out 10.9.0.7 10.9.0.8 deny")
	if err != nil {
		t.Fatal(err)
	}
	rule.Rule.File, rule.Rule.Line = "/a.ini", 7
	link := Link{
		Device: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/16")}, Gateways: []netip.Addr{netip.MustParseAddr("10.9.0.1")},
		MTU: 1500, Rules: []tuntap.DeviceRule{rule}, Greeting: Greeting{Credentials: true, UID: 7},
	}
	j := newJail(t, link, Link{Device: "eth1"})
	j.links[0].registered = []netip.Addr{netip.MustParseAddr("10.9.0.7")}
	before := nettest.OpenFiles(t, os.Getpid())
	var files vault.Files
	r, err := j.Keep(&files)
	if err != nil {
		t.Fatal(err)
	}
	next, err := RestoreJail(passOn(t, r), &files)
	files.Close()
	if err != nil {
		t.Fatal(err)
	}
	if next.Inode != j.Inode || next.Name != j.Name || !reflect.DeepEqual(next.Links(), j.Links()) || !reflect.DeepEqual(next.Addresses(), j.Addresses()) {
		t.Errorf("%+v\nwas %+v", next.Links(), j.Links())
	}
	// The device lives on with the adopted one alone.
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := next.Do(func() error { _, err := os.Stat("/proc/sys/net/ipv4/conf/eth0"); return err }); err != nil {
		t.Errorf("the device went: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if now := nettest.OpenFiles(t, os.Getpid()); now > before {
		t.Errorf("%d descriptors, were %d", now, before)
	}

	for name, spoil := range map[string]func(*JailRecord){
		"another namespace": func(r *JailRecord) { r.Inode++ },
		"a device more": func(r *JailRecord) {
			r.Links, r.Registered, r.Announced = append(r.Links, Link{Device: "x"}), append(r.Registered, nil), append(r.Announced, nil)
		},
		"half a record": func(r *JailRecord) { r.Registered = nil },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJail(t, Link{Device: "eth0"})
			before := nettest.OpenFiles(t, os.Getpid())
			var files vault.Files
			r, err := j.Keep(&files)
			if err != nil {
				t.Fatal(err)
			}
			spoil(&r)
			if _, err := RestoreJail(r, &files); err == nil {
				t.Error("no error")
			}
			files.Close()
			if now := nettest.OpenFiles(t, os.Getpid()); now != before {
				t.Errorf("%d descriptors, were %d", now, before)
			}
		})
	}
}
