package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// vaultFiles is what is open in the vault, without what numbers it. A process that
// has ended is of no account: its pidfd goes when its vassal is noted anew.
func (s *siege) vaultFiles() string {
	var pid int
	_, _ = fmt.Sscan(s.read("/run/fiefdom/emperor/vault"), &pid)
	dir := s.Path(fmt.Sprintf("/proc/%d/fd", pid))
	files, _ := os.ReadDir(dir)
	var all []string
	for _, f := range files {
		what, _ := os.Readlink(filepath.Join(dir, f.Name()))
		if info := s.read(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, f.Name())); strings.Contains(info, "Pid:\t-1\n") {
			continue
		}
		all = append(all, "vault's "+strings.TrimRight(what, "0123456789[]"))
	}
	return strings.Join(all, "\n") + "\n"
}

// launches are the numbers of generations and runs in the names of cgroups.
var launches = regexp.MustCompile(`\.\d+(/|$)`)

// loopbackMetric is of the route by which the host's own programs come to what is
// published at ::1: it follows the number of the device.
var loopbackMetric = regexp.MustCompile(`( local ::1 dev \S+ table local) metric \d+`)

// stillness is a snapshot without what differs from one emperor, or generation,
// to the next.
func (s *siege) stillness() string {
	var lines []string
	for line := range strings.Lines(s.Snapshot(s.t) + s.vaultFiles() + s.settings() + s.sets() + s.heldPorts()) {
		if strings.Contains(line, " fe80::") {
			continue // the kernel's, at random
		}
		kind, what, _ := strings.Cut(strings.TrimSpace(loopbackMetric.ReplaceAllString(line, "$1")), " ")
		switch kind {
		case "process":
			_, what, _ = strings.Cut(what, " ")
			if strings.HasSuffix(what, " run "+realmDir+"/emperor.ini") {
				continue
			}
			if program, _, ok := strings.Cut(what, " router "); ok {
				what = program + " router"
			}
		case "cgroup":
			what = launches.ReplaceAllString(what, "$1")
		case "file":
			if strings.HasPrefix(what, "/var/lib/fiefdom") || strings.HasPrefix(what, realmDir) {
				continue
			}
			what = strings.Join(strings.Fields(what)[:2], " ") // not its size
		}
		lines = append(lines, kind+" "+what)
	}
	for line := range strings.Lines(s.read("/etc/hosts")) {
		lines = append(lines, "hosts "+strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// settings are the kernel's that an emperor switches for his networks.
func (s *siege) settings() string {
	out, _ := s.Try(s.t, "sh", "-c", "cd /proc/sys/net && grep . ipv4/conf/*/forwarding ipv4/conf/*/route_localnet ipv6/conf/*/forwarding ipv6/conf/*/accept_ra")
	var b strings.Builder
	for line := range strings.Lines(out) {
		b.WriteString("sysctl " + line)
	}
	return b.String()
}

// flows is what a set of nftables has by itself.
var flows = regexp.MustCompile(`(flags dynamic[^}]*)elements = \{[^}]*\}`)

// sets are the tables of nftables with what is in their sets: who is in a bridge,
// with what addresses and published ports.
func (s *siege) sets() string {
	out, _ := s.Try(s.t, "nft", "list", "tables")
	var b strings.Builder
	for table := range strings.Lines(out) {
		if !strings.Contains(table, "fiefdom") {
			continue
		}
		text, _ := s.Try(s.t, "nft", append([]string{"-s", "list"}, strings.Fields(table)...)...)
		for line := range strings.Lines(flows.ReplaceAllString(text, "$1")) {
			if line = strings.TrimSpace(line); line != "" {
				b.WriteString("set " + strings.TrimSpace(table) + " " + line + "\n")
			}
		}
	}
	return b.String()
}

// heldPorts are those of the host's that somebody has, of all that a siege's
// vassals publish, and of those that names are asked at.
func (s *siege) heldPorts() string {
	var b strings.Builder
	s.Host.Do(s.t, func() {
		for _, port := range []int{53, 8000, 8001, 8002, 8090, 8091, 8092} {
			at := fmt.Sprintf("[::]:%d", port)
			tcp, err := net.Listen("tcp", at)
			if err == nil {
				err = tcp.Close()
			}
			if err != nil {
				fmt.Fprintf(&b, "held %d/tcp\n", port)
			}
			udp, err := net.ListenPacket("udp", at)
			if err == nil {
				err = udp.Close()
			}
			if err != nil {
				fmt.Fprintf(&b, "held %d/udp\n", port)
			}
		}
	})
	return b.String()
}

// nothingLeft gives up if there is anything that was not there before the emperor.
func (s *siege) nothingLeft() {
	if left := s.leftOver() + s.heldPorts(); left != "" {
		panic(gaveUp("left over:\n" + left))
	}
}
