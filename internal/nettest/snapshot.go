package nettest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Snapshot is what an emperor may leave behind on the world's host, one thing a
// line, sorted: processes, cgroups, devices, addresses, routes, iptables rules,
// tables of nftables, mounts and the files of /etc, /run and /var/lib. Compare two by [Diff].
func (w *World) Snapshot(t testing.TB) string {
	t.Helper()
	var lines []string
	add := func(kind string, things []string) {
		for _, thing := range things {
			lines = append(lines, kind+" "+thing)
		}
	}
	add("process", w.processes(t))
	add("cgroup", w.cgroups(t))
	add("link", fields(w.Host.Run(t, "ip", "-o", "link"), 1, 2))
	add("address", fields(w.Host.Run(t, "ip", "-o", "address"), 1, 3))
	add("route4", split(w.Host.Run(t, "ip", "-4", "route", "show", "table", "all")))
	add("route6", split(w.Host.Run(t, "ip", "-6", "route", "show", "table", "all")))
	add("iptables", rules(w.Run(t, "iptables-save")))
	add("ip6tables", rules(w.Run(t, "ip6tables-save")))
	add("nft", w.tables(t))
	add("mount", w.mounts(t))
	for _, dir := range []string{"/etc", "/run", "/var/lib"} {
		add("file", w.files(t, dir))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// Diff lists the lines that only one of two snapshots has: "-" only before, "+"
// only after. It is empty if they are equal.
func Diff(before, after string) string {
	count := map[string]int{}
	for _, line := range split(after) {
		count[line]++
	}
	for _, line := range split(before) {
		count[line]--
	}
	var out []string
	for line, n := range count {
		for range n {
			out = append(out, "+ "+line)
		}
		for range -n {
			out = append(out, "- "+line)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// processes lists what runs in the world's pid namespace, itself aside. A
// process on its way out has no command line and does not count; nor does one by
// which an emperor looks at the firewall now and then.
func (w *World) processes(t testing.TB) []string {
	t.Helper()
	dirs, err := filepath.Glob(w.Path("/proc/[0-9]*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("list processes of the world: %v", err)
	}
	var names []string
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // gone meanwhile
		}
		command := strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")
		program, _, _ := strings.Cut(command, " ")
		if base := filepath.Base(program); base == "iptables" || base == "ip6tables" {
			continue
		}
		if pid := filepath.Base(dir); pid != "1" && command != "" && command != "sh -c "+holder {
			names = append(names, pid+" "+command)
		}
	}
	return names
}

func (w *World) cgroups(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, root := range append([]string{w.cgroup}, w.legacy...) {
		if root == "" {
			continue
		}
		all = append(all, walk(t, root, func(path string, entry fs.DirEntry) string {
			if !entry.IsDir() {
				return ""
			}
			return filepath.Join(root, path)
		})...)
	}
	return all
}

func (w *World) mounts(t testing.TB) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(w.pid), "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		t.Fatalf("list mounts of the world: %v", err)
	}
	var lines []string
	for _, m := range mounts {
		if strings.Contains(m.Mountpoint, "/fiefdom-test-") {
			continue // of another package's test, on the machine, where it goes again
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", m.Mountpoint, m.FSType, m.Source, m.Root))
	}
	return lines
}

func (w *World) files(t testing.TB, dir string) []string {
	t.Helper()
	return walk(t, w.Path(dir), func(path string, entry fs.DirEntry) string {
		info, err := entry.Info()
		if err != nil {
			return "" // gone meanwhile
		}
		line := fmt.Sprintf("%s %v", filepath.Join(dir, path), info.Mode())
		if info.Mode().IsRegular() {
			line += fmt.Sprintf(" %d bytes", info.Size())
		}
		return line
	})
}

// walk describes everything below root; what describe returns "" for is left out.
func walk(t testing.TB, root string, describe func(path string, entry fs.DirEntry) string) []string {
	t.Helper()
	var lines []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // gone while we walked
		}
		if line := describe(path, entry); line != "" {
			lines = append(lines, line)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk %s: %v", root, err)
	}
	return lines
}

var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// rules takes from the output of iptables-save what somebody has set: the rules,
// chains of their own, policies other than ACCEPT; each with its table and its
// place in it, for the order is part of the meaning.
func rules(saved string) []string {
	var lines []string
	table, n := "", 0
	for _, line := range split(saved) {
		line = strings.TrimSpace(counters.ReplaceAllString(line, ""))
		switch {
		case strings.HasPrefix(line, "*"):
			table, n = line[1:], 0
		case strings.HasPrefix(line, "-A"):
			n++
			lines = append(lines, fmt.Sprintf("%s %3d %s", table, n, line))
		case strings.HasPrefix(line, ":") && !strings.HasSuffix(line, " ACCEPT"):
			lines = append(lines, table+" "+line)
		}
	}
	return lines
}

// tables lists the tables of nftables that are nobody's but an emperor's: those of
// iptables come and go with it.
func (w *World) tables(t testing.TB) []string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		return nil
	}
	var lines []string
	for _, table := range split(w.Run(t, "nft", "list", "tables")) {
		if !strings.Contains(table, "fiefdom") {
			continue
		}
		// Its chains, and no counters. One that is just going has none.
		text, _ := w.Try(t, "nft", append([]string{"-s", "-t", "list"}, strings.Fields(table)...)...)
		for _, line := range split(text) {
			lines = append(lines, table+" "+line)
		}
	}
	return lines
}

func split(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// fields takes from each line the fields of the given numbers.
func fields(text string, numbers ...int) []string {
	var lines []string
	for _, line := range split(text) {
		all := strings.Fields(line)
		var some []string
		for _, n := range numbers {
			if n < len(all) {
				some = append(some, all[n])
			}
		}
		lines = append(lines, strings.Join(some, " "))
	}
	return lines
}
