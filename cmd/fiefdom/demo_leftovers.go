package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"fiefdom/vassal"
)

// hostState lists, a line each and sorted, what an emperor could leave on the
// demo's host: processes, devices, addresses, iptables rules, cgroups, mounts,
// and files of /run. Of its folder in /var/lib it is expected to keep the
// leases.
func hostState() ([]string, error) {
	var all []string
	for _, list := range []struct {
		kind string
		of   func() ([]string, error)
	}{
		{"process", processes},
		{"device", devices},
		{"cgroup", cgroups},
		{"mount", mounts},
		{"file", runFiles},
		{"iptables", func() ([]string, error) { return savedRules("iptables-save") }},
		{"ip6tables", func() ([]string, error) { return savedRules("ip6tables-save") }},
	} {
		lines, err := list.of()
		if err != nil {
			return nil, fmt.Errorf("list what is there (%s): %w", list.kind, err)
		}
		for _, line := range lines {
			all = append(all, list.kind+" "+line)
		}
	}
	slices.Sort(all)
	return all, nil
}

// differences are the lines that only one of two sorted lists has.
func differences(before, after []string) []string {
	var lines []string
	for _, l := range before {
		if _, ok := slices.BinarySearch(after, l); !ok {
			lines = append(lines, "gone: "+l)
		}
	}
	for _, l := range after {
		if _, ok := slices.BinarySearch(before, l); !ok {
			lines = append(lines, "left: "+l)
		}
	}
	return lines
}

// processes are those beside ourselves. One on its way out has no command line.
func processes() ([]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, dir := range dirs {
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if pid := filepath.Base(dir); err == nil && pid != "1" && len(command) > 0 {
			lines = append(lines, pid+" "+strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return lines, nil
}

func devices() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, link := range links {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		lines = append(lines, link.Attrs().Name)
		for _, a := range addrs {
			lines = append(lines, a.String())
		}
	}
	return lines, nil
}

func cgroups() ([]string, error) {
	own, err := vassal.OwnCgroup()
	if err != nil {
		return nil, nil //nolint:nilerr // without a tree there is nothing in it
	}
	var lines []string
	err = filepath.WalkDir(string(own), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			lines = append(lines, path)
		}
		return nil // what goes while we look is gone
	})
	return lines, err
}

func mounts() ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, m := range all {
		lines = append(lines, m.Mountpoint+" "+m.FSType)
	}
	return lines, nil
}

func runFiles() ([]string, error) {
	var lines []string
	err := filepath.WalkDir("/run", func(path string, _ fs.DirEntry, err error) error {
		if path == demoDir {
			return fs.SkipDir // our own
		}
		if err == nil {
			lines = append(lines, path)
		}
		return nil
	})
	return lines, err
}

var counts = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\[\d+:\d+\]`) })

// savedRules are the rules and chains that somebody made: the empty tables
// that iptables makes by itself do not count.
func savedRules(command string) ([]string, error) {
	out, err := exec.Command(command).Output()
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(counts().ReplaceAllString(line, ""))
		if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") && !strings.HasSuffix(line, " ACCEPT") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
