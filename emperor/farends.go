package emperor

import (
	"fmt"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// refuseRoutes says which rule of a device of this emperor's routes packets to
// where the operator has not said that they may go. A nil network is none.
func (n *Network) refuseRoutes(d vassal.DeviceSpec) *ini.Error {
	for i := range d.Rules {
		r := &d.Rules[i]
		if !r.Routes() {
			continue
		}
		why := ""
		switch {
		case n == nil:
			why = fmt.Sprintf("device %s joins no router, so nothing can route its packets; write tuntap-device = %s SOCKET, or remove the rule", d.Name, d.Name)
		case !n.Gateway:
			why = fmt.Sprintf("network %s has no UDP gateway to route packets by; the emperor's ini has to give it one (tuntap-router = %s %s STATS IP:PORT), or remove the rule", n.Device, n.Device, n.Socket)
		case !slices.Contains(n.FarEnds, r.Target):
			why = fmt.Sprintf("%s is no far end of network %s (%s); the emperor's ini has to name it: tuntap-router-gateway-peer = %s", r.Target, n.Device, n.farEnds(), r.Target)
		default:
			continue
		}
		return &ini.Error{Pos: ini.Pos{File: r.Rule.File, Line: r.Rule.Line}, Message: why}
	}
	return nil
}

func (n *Network) farEnds() string {
	if len(n.FarEnds) == 0 {
		return "it has none"
	}
	var all []string
	for _, a := range n.FarEnds {
		all = append(all, a.String())
	}
	return "they are: " + strings.Join(all, " ")
}
