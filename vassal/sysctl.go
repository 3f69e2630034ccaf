package vassal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// jailSettings are the sysctls of a jail whose network is ours to set. An app
// without capabilities finds what it would expect of a machine of its own: low
// ports and ping. What a namespace may have from the host is as it should be: a
// vassal in two networks is no router between them, hears no redirects, and
// takes what comes in by its second device.
var jailSettings = [][2]string{
	{"net/ipv4/ip_forward", "0"}, // the first: it resets others
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
	{"net/ipv4/conf/all/accept_redirects", "0"},
	{"net/ipv4/conf/default/accept_redirects", "0"},
	{"net/ipv4/conf/all/accept_source_route", "0"},
	{"net/ipv4/conf/all/rp_filter", "2"},
	{"net/ipv6/conf/all/forwarding", "0"},
}

// deviceSettings are those of a device. The kernel's own configuration of IPv6
// is switched off: nobody on the network is to give the jail an address or a route.
func deviceSettings(device string, six bool) [][2]string {
	conf := "net/ipv6/conf/" + device + "/"
	own := [][2]string{{"net/ipv4/conf/" + device + "/accept_redirects", "0"}, {"net/ipv4/conf/" + device + "/accept_source_route", "0"}}
	if !six {
		return append(own, [2]string{conf + "disable_ipv6", "1"})
	}
	return append(own, [][2]string{
		{conf + "disable_ipv6", "0"},
		{conf + "addr_gen_mode", "1"},
		{conf + "accept_ra", "0"},
		{conf + "accept_dad", "0"},
		{conf + "accept_redirects", "0"},
		{conf + "router_solicitations", "0"},
	}...)
}

// SettingsRefused says why jails' sysctls cannot be set on this machine: in a
// container /proc/sys is often for reading only.
func SettingsRefused() error {
	const folder = "/proc/sys/net"
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s: %w, and jails have sysctls of their own to set", folder, unix.EROFS)
	}
	return nil
}

func setSysctls(settings [][2]string) error {
	for _, s := range settings {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// sysctl writes one of the calling thread's namespace: /proc/sys/net follows
// the thread that opens it.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without the feature, IPv6 for one, has nothing to set
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}
