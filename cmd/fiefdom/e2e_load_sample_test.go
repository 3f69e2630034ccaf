package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sample is what a realm uses at one time, under load or not.
type sample struct {
	at        time.Duration // since the load began
	routerPID int
	memory    map[string]int // KiB of anonymous memory, by process
	counts    map[string]int // of everything that has to stay as many
}

// sample counts what the emperor and its router hold: "emperor" and "router"
// with "fds", "tuns" (descriptors of devices), "threads" and "goroutines"; and
// "world" with "namespaces", "devices" (of the host), "cgroups" and "processes".
// It asks no command, so it is quick and may run beside the test.
func (r *realm) sample(ctx context.Context, at time.Duration) (sample, error) {
	s := sample{at: at, memory: map[string]int{}, counts: map[string]int{}}
	self, err := r.api.Self(ctx)
	if err != nil {
		return s, err
	}
	stats, err := r.stats()
	if err != nil {
		return s, err
	}
	s.routerPID = stats.PID
	s.counts["emperor goroutines"], s.counts["router goroutines"] = self.Goroutines, stats.Goroutines
	for name, pid := range map[string]int{"emperor": self.PID, "router": stats.PID} {
		if err := r.measure(&s, name, pid); err != nil {
			return s, err
		}
	}
	return s, r.measureWorld(&s)
}

// wholeSample is a sample with all that a snapshot knows, by its kinds.
func (r *realm) wholeSample(t *testing.T, at time.Duration) sample {
	t.Helper()
	s, err := r.sample(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(r.Snapshot(t)) {
		kind, _, _ := strings.Cut(line, " ")
		s.counts[kind]++
	}
	return s
}

func (r *realm) measure(s *sample, name string, pid int) error {
	dir := r.Path("/proc/" + strconv.Itoa(pid))
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return err
	}
	fields := statusOf(string(status))
	if s.counts[name+" threads"], err = strconv.Atoi(fields["Threads"]); err != nil {
		return err
	}
	if s.memory[name], err = strconv.Atoi(strings.TrimSuffix(fields["RssAnon"], " kB")); err != nil {
		return err
	}
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return err
	}
	s.counts[name+" fds"] = len(fds)
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && target == "/dev/net/tun" {
			s.counts[name+" tuns"]++
		}
	}
	return nil
}

func (r *realm) measureWorld(s *sample) error {
	processes, err := filepath.Glob(r.Path("/proc/[0-9]*"))
	if err != nil {
		return err
	}
	devices, err := os.ReadFile(r.Path("/proc/1/net/dev"))
	if err != nil {
		return err
	}
	s.counts["world processes"] = len(processes)
	s.counts["world devices"] = strings.Count(string(devices), ":")
	s.counts["world namespaces"] = namespacesOf(processes)
	return filepath.WalkDir(r.Path(strings.TrimSpace(r.read("/run/fiefdom/emperor/cgroup"))), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			s.counts["world cgroups"]++
		}
		return nil // it may be gone meanwhile
	})
}

// namespacesOf counts the namespaces of all kinds that processes, given by
// their folders, are in or hold open. What is gone meanwhile does not count.
func namespacesOf(processes []string) int {
	seen := map[string]bool{}
	for _, dir := range processes {
		for _, kind := range []string{"ns", "fd"} {
			links, _ := os.ReadDir(filepath.Join(dir, kind))
			for _, link := range links {
				target, _ := os.Readlink(filepath.Join(dir, kind, link.Name()))
				if namespaceLink.MatchString(target) {
					seen[target] = true
				}
			}
		}
	}
	return len(seen)
}

// namespaceLink is how namespaces(7) shows one.
var namespaceLink = regexp.MustCompile(`^(cgroup|ipc|mnt|net|pid|time|user|uts):\[`)

// unequal lists what two samples have not as many of. Threads are the
// runtime's to make, and it never ends one: they may be fewer, and a few more.
func unequal(before, after sample) []string {
	const moreThreads = 3
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(before.counts)) {
		was, is := before.counts[name], after.counts[name]
		if was == is || strings.HasSuffix(name, "threads") && is <= was+moreThreads {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: %d before, %d after", name, was, is))
	}
	return lines
}

// loadTable is samples for people, at most about thirty lines of them.
func loadTable(samples []sample) string {
	columns := []struct {
		of    string
		names []string
	}{
		{"emperor", []string{"goroutines", "threads", "fds", "tuns"}},
		{"router", []string{"goroutines", "threads", "fds", "tuns"}},
		{"world", []string{"namespaces", "devices", "cgroups", "processes"}},
	}
	var b strings.Builder
	b.WriteString("        | emperor      go-                    | router       go-                    | world  name- de-   c-     pro-\n")
	b.WriteString("   time |     KiB routines threads  fds  tuns |     KiB routines threads  fds  tuns |       spaces vices groups cesses\n")
	step := (len(samples) + 29) / 30
	for i, s := range samples {
		if i%step != 0 && i != len(samples)-1 {
			continue
		}
		fmt.Fprintf(&b, "%7v |", s.at.Round(time.Second))
		for _, c := range columns {
			if kib, ok := s.memory[c.of]; ok {
				fmt.Fprintf(&b, "%8d ", kib)
			}
			for _, name := range c.names {
				fmt.Fprintf(&b, "%7d", s.counts[c.of+" "+name])
			}
			b.WriteString(" |")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// trend compares the second quarter of a row of numbers with the last one.
func trend(row []int) (second, last int) {
	quarter := len(row) / 4
	return median(row[quarter : 2*quarter]), median(row[len(row)-quarter:])
}

func median(row []int) int {
	sorted := slices.Sorted(slices.Values(row))
	return sorted[len(sorted)/2]
}
