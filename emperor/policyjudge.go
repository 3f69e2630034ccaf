package emperor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// policed says what of an owner's ini is beyond the operator's policy, or where
// there is none beyond what tyrant mode leaves to it.
func (e *Emperor) policed(c *vassal.Config) ini.Errors {
	switch {
	case !e.Config.Tyrant:
		return nil
	case e.Config.PolicyFile != "" && e.Config.Policy == nil:
		return ini.Errors{{Pos: ini.Pos{File: c.File}, Message: "the policy " + e.Config.PolicyFile + " was not read, so nothing is allowed"}}
	}
	b := e.boundsOf(c)
	if b == nil {
		return lowPorts(c)
	}
	t := trial{bounds: b, config: c, devices: e.devices(c)}
	t.name()
	t.inDevices()
	t.inNetworks(e)
	t.unshared()
	t.published()
	t.confined()
	t.limits()
	return t.errs
}

// trial is one ini before the policy.
type trial struct {
	*bounds
	config  *vassal.Config
	devices []vassal.DeviceSpec // that it is to have
	errs    ini.Errors
}

// refuse says that the ini asks for more than a key allows.
func (t *trial) refuse(at ini.Pos, key, what string) {
	if at.File == "" {
		at.File = t.config.File
	}
	t.errs = append(t.errs, ini.Error{Pos: at, Message: t.beyond(key, what)})
}

// maxLines is how many lines of a policy an error tells.
const maxLines = 4

// beyond is the error about what a key of the policy does not allow.
func (b *bounds) beyond(key, what string) string {
	var lines []string
	for i, l := range b.said[key] {
		if i == maxLines {
			lines = append(lines, "…")
			break
		}
		lines = append(lines, l.String())
	}
	return fmt.Sprintf("%s is beyond the operator's policy for %s, %s; stay within it, or ask the operator", what, b.owner, strings.Join(lines, ", "))
}

func (t *trial) name() {
	if t.says("vassal-names") && !t.matches(t.bounds.names, t.config.Name) {
		t.refuse(ini.Pos{}, "vassal-names", fmt.Sprintf("the name %q", t.config.Name))
	}
}

func (t *trial) inDevices() {
	if t.says("devices") && len(t.devices) > t.bounds.devices {
		t.refuse(t.devices[t.bounds.devices].Pos, "devices", fmt.Sprintf("device number %d, %s,", t.bounds.devices+1, t.devices[t.bounds.devices].Name))
	}
	for _, d := range t.config.Devices {
		if t.says("tuntap-device") && !d.Implicit && !d.Named() && !t.matches(t.deviceName, d.Name) {
			t.refuse(d.Pos, "tuntap-device", "device "+d.Name)
		}
		for _, a := range d.Addresses {
			if t.says("tuntap-device-address") && !anyContains(t.addresses, a) {
				t.refuse(d.Pos, "tuntap-device-address", "address "+a.String())
			}
		}
	}
}

func anyContains(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// inNetworks judges where devices are. One that the emperor's ini gives to all
// counts: who may not have it writes network = none, or another.
func (t *trial) inNetworks(e *Emperor) {
	if !t.says("network") {
		return
	}
	for _, d := range t.devices {
		name := ""
		if n, err := e.networkOf(d); n != nil && err == nil {
			name = n.Device
		} else if d.Bridge != "" {
			name = bridgeWord(d.Bridge)
		}
		if name != "" && !slices.Contains(t.networks, name) {
			t.refuse(d.Pos, "network", "network "+name)
		}
	}
}

func (t *trial) unshared() {
	i := &t.config.Isolation
	if more := i.Namespaces() &^ t.namespaces; t.says("unshare") && more != 0 {
		t.refuse(i.At["unshare"], "unshare", "unshare = "+vassal.NamespaceText(more))
	}
	if t.says("unshare") && i.Users && t.namespaces&unix.CLONE_NEWUSER == 0 {
		t.refuse(i.At["userns"], "unshare", "userns = auto, a user namespace,")
	}
}

func (t *trial) published() {
	if !t.says("publish") {
		t.errs = append(t.errs, lowPorts(t.config)...)
	}
	ports := 0
	for _, p := range t.config.Publish {
		ports += int(p.Last-p.First) + 1
		if t.says("publish") && !slices.ContainsFunc(t.publish, func(most vassal.Publish) bool { return p.Within(most) }) {
			t.refuse(p.Pos, "publish", "publish = "+p.String())
		}
		if t.says("publish-ports") && ports > t.ports {
			t.refuse(p.Pos, "publish-ports", fmt.Sprintf("port number %d, by publish = %s,", t.ports+1, p))
			return
		}
	}
}

func (t *trial) limits() {
	own := &t.config.Resources
	for _, option := range vassal.ResourceNames {
		most := vassal.Resources{}.Replace(&t.resources, func(o string) bool { return o == option && t.says(o) })
		if over, text := own.Exceeds(&most); over != "" {
			t.refuse(own.At[over], over, over+" = "+text)
		}
	}
}

// ceilings are what the emperor's ini and the policy say of limits: those of who
// does not say, and the most.
func (b *bounds) ceilings(emperors *vassal.Resources) (defaults, most vassal.Resources) {
	if b == nil {
		return *emperors, *emperors
	}
	policys := vassal.Resources{}.Replace(&b.resources, b.says)
	return emperors.Within(&policys), emperors.Replace(&policys, b.says)
}
