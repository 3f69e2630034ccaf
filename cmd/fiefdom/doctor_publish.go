package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"fiefdom/firewall/nat"
)

// maxFixes is how many commands a finding shows.
const maxFixes = 8

// checkPublished compares what vassals publish with the host's own firewall,
// which decides about other machines.
func checkPublished() finding {
	found, list, err := nat.Collisions()
	switch {
	case err != nil && os.Geteuid() != 0:
		return warn("run it as root", "%v", err)
	case err != nil:
		return warn("", "%v", err)
	case len(list) == 0:
		return fine("nothing is published for other machines")
	case len(found) == 0 && len(deaf(list)) > 0:
		return deafFinding(deaf(list))
	case len(found) == 0:
		return fine("%s: the host's firewall does not stand in the way", nat.Ports(list))
	}
	var details, fixes []string
	for _, c := range found {
		details = append(details, c.String())
		fixes = append(fixes, c.Fix...)
		if !c.Closed {
			fixes = append(fixes, `if that is not meant: publish on 127.0.0.1, or only for some ("publish = 8080:80 from 203.0.113.0/24")`)
		}
	}
	if d := deaf(list); len(d) > 0 {
		f := deafFinding(d)
		details, fixes = append(details, f.Detail), append(fixes, f.Fix)
	}
	if n := len(fixes); n > maxFixes {
		fixes = append(fixes[:maxFixes], fmt.Sprintf("… and %d more", n-maxFixes))
	}
	return warn(strings.Join(fixes, "\n"), "%s", strings.Join(details, "\n"))
}

// deaf are the ports that are published at ::1 alone, to vassals of bridges, while
// iptables sees what bridges switch: the kernel drops what comes from a bridge for ::1.
func deaf(list []nat.Published) []nat.Published {
	seen, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
	if err != nil || string(bytes.TrimSpace(seen)) == "0" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(list), func(p nat.Published) bool {
		link, err := netlink.LinkByName(p.Device)
		return p.Host != netip.IPv6Loopback() || err != nil || link.Type() != "bridge"
	})
}

func deafFinding(list []nat.Published) finding {
	return warn("publish on 127.0.0.1 too, or: sysctl net.bridge.bridge-nf-call-ip6tables=0",
		"%s: nobody reaches it: it leads into a bridge, and with br_netfilter the kernel drops the answers", nat.Ports(list))
}
