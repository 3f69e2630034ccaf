package vassal

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"fiefdom/tuntap"
)

// mountsIn are mounts as /proc/PID/mountinfo has them: place, kind, number, options.
func mountsIn(t *testing.T, root string, lines ...string) mountView {
	t.Helper()
	m := mountView{by: map[string]*mountinfo.Info{}, root: root}
	for _, line := range lines {
		w := strings.Fields(line)
		i := &mountinfo.Info{Mountpoint: w[0], FSType: w[1], Major: 8, Minor: len(w[2]), Root: "/", Options: w[3]}
		m.all, m.by[i.Mountpoint] = append(m.all, i), i
	}
	return m
}

func TestWhatMountsComeTo(t *testing.T) {
	host := mountsIn(t, "/", "/ ext4 1 rw,relatime", "/proc proc 11 rw,nosuid", "/sys sysfs 111 rw,nosuid", "/run tmpfs 1111 rw,nosuid,nodev", "/dev devtmpfs 11111 rw,nosuid")
	cage := mountsIn(t, "/", "/ ext4 1 ro,nosuid", "/tmp tmpfs 111111 rw,nosuid,noexec", "/run tmpfs 111111 rw,nosuid", "/dev tmpfs 1111111 ro,nosuid,noexec", "/dev/pts devpts 1111 rw,nosuid,noexec",
		"/proc proc 11111111 rw,nosuid", "/proc/sys proc 11111111 ro,nosuid", "/sys sysfs 111 ro,nosuid", "/srv/shop/data ext4 1 rw,nosuid", "/mnt ext4 1 rw")
	changed := mountsIn(t, "/srv/root")
	k := &Confined{Writable: []string{"/srv/shop/data"}}
	if got := cage.open(k); !slices.Equal(got, []string{"/mnt"}) {
		t.Errorf("open are %q", got)
	}
	if got := host.open(new(Confined)); !slices.Contains(got, "/") || !slices.Contains(got, "/dev") {
		t.Errorf("open of the host's are %q", got)
	}
	if got := cage.without("nosuid", false); !slices.Equal(got, []string{"/mnt"}) {
		t.Errorf("setuid counts on %q", got)
	}
	if got := cage.without("noexec", true); !slices.Equal(got, []string{"/run", "/srv/shop/data", "/mnt"}) {
		t.Errorf("executed from %q", got)
	}
	if cage.machine() || !host.machine() || changed.machine() {
		t.Error("which /proc and /sys are the machine's:", cage.machine(), host.machine(), changed.machine())
	}
	for path, want := range map[string]bool{"/run": false, "/dev": false, "/tmp": false, "/usr": true} {
		if got := cage.shares(path, host); got != want {
			t.Errorf("%s shared: %v", path, got)
		}
		if !host.shares(path, host) || changed.shares(path, host) {
			t.Errorf("%s is not shared by the host itself, or is by another root", path)
		}
	}
	for path, want := range map[string]bool{"/srv/shop/app.py": true, "/srv/shop/data/app.py": false, "/mnt/x": false} {
		if got := cage.readOnly(path); got != want {
			t.Errorf("%s read-only: %v", path, got)
		}
	}
}

func TestWhatRulesLeave(t *testing.T) {
	rules := func(lines ...string) (all []Rule) {
		for _, line := range lines {
			r, err := tuntap.ParseDeviceRule(line)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		return all
	}
	for _, tt := range []struct {
		name       string
		chain, own []string
		v6         bool
		want       Undecided
	}{
		{"none", nil, nil, false, Undecided{}},
		{"own, all", nil, []string{"out any any deny"}, false, Undecided{Denied: true}},
		{"own, of IPv4 alone", nil, []string{"out 0.0.0.0 0.0.0.0 deny"}, false, Undecided{Denied: true}},
		{"own, of IPv4 alone, by IPv6", nil, []string{"out 0.0.0.0 0.0.0.0 deny"}, true, Undecided{}},
		{"own, the other direction", nil, []string{"in any any deny"}, false, Undecided{}},
		{"own, some before", nil, []string{"out any 10.0.0.0/8 allow", "out any any reject"}, false, Undecided{Denied: true}},
		{"own, all allowed before", nil, []string{"out any any allow", "out any any deny"}, false, Undecided{}},
		{"own, of some senders", nil, []string{"out 10.0.0.0/8 any deny"}, false, Undecided{}},
		{"the chain allows all", []string{"out any any allow"}, nil, false, Undecided{Allowed: true}},
		{"the chain allows all, own not", []string{"out any any allow"}, []string{"out any any deny"}, false, Undecided{Allowed: true, Denied: true}},
		{"the chain denies all", []string{"out any any deny"}, []string{"out any any allow"}, false, Undecided{Denied: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := WhatIsLeft(rules(tt.chain...), rules(tt.own...), tt.v6); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
