package vassal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestValidateForged gives the emperor's side what no parser would make: the
// process that answers runs under the owner's uid.
func TestValidateForged(t *testing.T) {
	bad := 0o1777
	many := func(n int) (all []DeviceSpec) {
		for i := range n {
			all = append(all, DeviceSpec{Name: fmt.Sprintf("d%d", i)})
		}
		return all
	}
	var crowd []netip.Addr
	for i := range maxAddresses + 1 {
		crowd = append(crowd, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}))
	}
	for name, tc := range map[string]struct {
		forge func(*Config)
		want  string
	}{
		"nothing to run":     {func(c *Config) { c.Command = nil }, "nothing to run"},
		"empty name":         {func(c *Config) { c.Command = []string{""} }, "empty name"},
		"NUL in an argument": {func(c *Config) { c.Command = []string{"a", "b\x00c"} }, "NUL"},
		"NUL in the env":     {func(c *Config) { c.Env = []string{"A=\x00"} }, "NAME=VALUE"},
		"huge env":           {func(c *Config) { c.Env = []string{"A=" + strings.Repeat("x", maxEnv)} }, "at most"},
		"relative chdir":     {func(c *Config) { c.Chdir = "../x" }, "absolute"},
		"relative chroot":    {func(c *Config) { c.Chroot = "x" }, "absolute"},
		"relative logto":     {func(c *Config) { c.LogTo = "x" }, "absolute"},
		"long path":          {func(c *Config) { c.LogTo = "/" + strings.Repeat("x", maxPath) }, "absolute"},
		"negative uid":       {func(c *Config) { c.UID = &Identity{ID: -5} }, "no number"},
		"uid that is -1":     {func(c *Config) { c.UID = &Identity{ID: 1<<32 - 1} }, "no number"},
		"uid that wraps":     {func(c *Config) { c.UID = &Identity{ID: 1 << 32} }, "no number"},
		"main group wraps":   {func(c *Config) { c.UID = &Identity{ID: 5, Main: 1 << 32} }, "no number"},
		"a group wraps":      {func(c *Config) { c.UID = &Identity{ID: 5, Groups: []int{1 << 32}} }, "no number"},
		"negative gid":       {func(c *Config) { c.GID = &Identity{ID: -1} }, "no number"},
		"negative add-gid":   {func(c *Config) { c.AddGID = []Identity{{ID: -1}} }, "no number"},
		"capability":         {func(c *Config) { c.Cap = []string{"CAP_ALL"} }, "unknown capability"},
		"signal":             {func(c *Config) { c.StopSignal = 1000 }, "signal"},
		"negative signal":    {func(c *Config) { c.StopSignal = -9 }, "signal"},
		"endless mercy":      {func(c *Config) { c.ReloadMercy = 1 << 62 }, "at most"},
		"negative mercy":     {func(c *Config) { c.ReloadMercy = -time.Second }, "at most"},
		"umask":              {func(c *Config) { c.Umask = &bad }, "umask"},
		"hook action":        {func(c *Config) { c.Hooks = []Hook{{Phase: AsRoot, Action: "fly"}} }, "unknown action"},
		"hook phase":         {func(c *Config) { c.Hooks = []Hook{{Phase: "later", Action: "exec"}} }, "unknown phase"},
		"many hooks":         {func(c *Config) { c.Hooks = slices.Repeat([]Hook{{Phase: AsUser, Action: "log"}}, maxHooks+1) }, "at most 1000"},
		"another phase":      {func(c *Config) { c.Hooks = []Hook{{Phase: AsVassal, Action: "exec"}} }, "unknown phase"},
		"clone flags":        {func(c *Config) { c.Isolation.Unshare = 1 << 8 }, "no namespaces"},
		"relative root":      {func(c *Config) { c.Isolation.Root = "srv" }, "absolute"},
		"the host's root":    {func(c *Config) { c.Isolation.Root = "/" }, "the host's root"},
		"long hostname":      {func(c *Config) { c.Isolation.Root, c.Isolation.Hostname = "/srv", strings.Repeat("x", 65) }, "at most 64"},
		"hostname alone":     {func(c *Config) { c.Isolation.Hostname = "x" }, "ROOTFS"},
		"kept, no root":      {func(c *Config) { c.Isolation.Keep = []Keep{{"/a", "/b"}} }, "without namespace"},
		"many kept": {func(c *Config) {
			c.Isolation.Root, c.Isolation.Keep = "/srv", slices.Repeat([]Keep{{"/a", "/b"}}, maxKeeps+1)
		}, "at most 100"},
		"relative keep":     {func(c *Config) { c.Isolation.Root, c.Isolation.Keep = "/srv", []Keep{{"/a", "b"}} }, "absolute"},
		"old root outside":  {func(c *Config) { c.Isolation.PivotRoot, c.Isolation.PivotOld = "/new", "/old" }, "below the first"},
		"old root alone":    {func(c *Config) { c.Isolation.PivotOld = "/old" }, "below the first"},
		"relative setns":    {func(c *Config) { c.Isolation.Setns = "x" }, "absolute"},
		"long setns-socket": {func(c *Config) { c.Isolation.Serve = "/" + strings.Repeat("x", 108) }, "at most 107"},
		"cgroup's option":   {func(c *Config) { c.Isolation.Cgroups, c.Isolation.CgroupOpts = []string{"/a"}, []string{"../b=1"} }, "FILE=VALUE"},
		"option, no cgroup": {func(c *Config) { c.Isolation.CgroupOpts = []string{"b=1"} }, "without cgroup"},
		"many cgroups":      {func(c *Config) { c.Isolation.Cgroups = slices.Repeat([]string{"/a"}, 33) }, "at most 32"},
		"cgroup's mode":     {func(c *Config) { c.Isolation.CgroupMode = &bad }, "cgroup-dir-mode"},
		"negative limit":    {func(c *Config) { c.Limits.Files = -1 }, "max-fd"},
		"nicer than nice":   {func(c *Config) { c.Limits.Nice = -21 }, "prio"},
		"device twice":      {func(c *Config) { c.Devices = []DeviceSpec{{Name: "a"}, {Name: "a"}} }, "declared twice"},
		"device's path":     {func(c *Config) { c.Devices = []DeviceSpec{{Name: "../all"}} }, "no device name"},
		"device, no name":   {func(c *Config) { c.Devices = []DeviceSpec{{}} }, "no device name"},
		"device's escape":   {func(c *Config) { c.Devices = []DeviceSpec{{Name: "\x1b[2J"}} }, "no device name"},
		"many devices":      {func(c *Config) { c.Devices = many(maxDevices + 1) }, "at most 16"},
		"mtu":               {func(c *Config) { c.Devices = []DeviceSpec{{Name: "a", MTU: -1}} }, "MTU"},
		"no address":        {func(c *Config) { c.Devices = []DeviceSpec{{Name: "a", Addresses: make([]netip.Addr, 1)}} }, "cannot be"},
		"no gateway":        {func(c *Config) { c.Devices = []DeviceSpec{{Name: "a", Gateways: make([]netip.Addr, 1)}} }, "gateway"},
		"the whole pool":    {func(c *Config) { c.Devices = []DeviceSpec{{Name: "a", Addresses: crowd}} }, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Config{Name: "blog", File: "blog.ini", Command: []string{"/bin/true"}}
			if errs := c.Validate(); len(errs) > 0 {
				t.Fatalf("before: %v", errs)
			}
			tc.forge(c)
			errs := c.Validate()
			if !errs.Failed() || !strings.Contains(errs.Error(), tc.want) {
				t.Errorf("got %v, want %q", errs, tc.want)
			}
			if errs.Failed() && errs[0].Pos.File != "blog.ini" {
				t.Errorf("no place: %v", errs)
			}
			if n := len(errs.Error()); n > 2000 {
				t.Errorf("the message has %d bytes", n)
			}
		})
	}
}
