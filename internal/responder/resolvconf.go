package responder

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Where the host says which resolvers it has: its own file, and where that names
// systemd-resolved's stub, the one that lists those behind it
// (systemd-resolved.service(8)).
const (
	ResolvConf  = "/etc/resolv.conf"
	systemdConf = "/run/systemd/resolve/resolv.conf"
)

var systemdStub = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 53}), netip.AddrFrom4([4]byte{127, 0, 0, 54})}

// Conf is what the host's files say about names.
type Conf struct {
	Resolvers []netip.AddrPort
	Search    []string
}

// HostConf reads the host's files. A file that is not there says nothing.
func HostConf() Conf { return readConf(ResolvConf, systemdConf) }

func readConf(path, behindStub string) Conf {
	c := parseConf(path)
	isStub := func(a netip.AddrPort) bool { return slices.Contains(systemdStub, a.Addr()) }
	if !slices.ContainsFunc(c.Resolvers, isStub) {
		return c
	}
	if behind := parseConf(behindStub); len(behind.Resolvers) > 0 {
		c.Resolvers = append(slices.DeleteFunc(c.Resolvers, isStub), behind.Resolvers...)
	}
	return c
}

func parseConf(path string) (c Conf) {
	f, err := os.Open(path)
	if err != nil {
		return c
	}
	defer f.Close()
	file, err := dns.ClientConfigFromReader(f)
	if err != nil {
		return c
	}
	for _, s := range file.Servers {
		if a, err := netip.ParseAddr(s); err == nil && !a.IsUnspecified() {
			if at := netip.AddrPortFrom(a.Unmap(), Port); !slices.Contains(c.Resolvers, at) {
				c.Resolvers = append(c.Resolvers, at)
			}
		}
	}
	for _, domain := range file.Search {
		domain = strings.TrimSuffix(strings.ToLower(domain), ".")
		if _, ok := dns.IsDomainName(domain); ok && domain != "" && !strings.ContainsAny(domain, " \t\n\\") {
			c.Search = append(c.Search, domain)
		}
	}
	return c
}
