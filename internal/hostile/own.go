package hostile

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

func procPath(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }

// statusOf is /proc/WHO/status by its keys; empty if there is none.
func statusOf(who string) map[string]string {
	text, err := os.ReadFile("/proc/" + who + "/status")
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	return fields
}

func parent(pid int) int {
	n, _ := strconv.Atoi(statusOf(strconv.Itoa(pid))["PPid"])
	return n
}

// ancestors are the processes above one, as far as they are seen.
func ancestors(pid int) (pids []int) {
	for p := parent(pid); p > 0 && len(pids) < 64; p = parent(p) {
		pids = append(pids, p)
	}
	return pids
}

// network says which network namespace a process is in; "" if it is not told.
func network(who string) string {
	link, _ := os.Readlink("/proc/" + who + "/ns/net")
	return link
}

// ours says of a process that is seen whether it belongs to this vassal: this
// program and what it started, whatever is below the reaper that this program was
// born under, and what shares its network and lets itself be looked at.
func (s *Site) ours(pid int) bool {
	if tgid, err := strconv.Atoi(statusOf(strconv.Itoa(pid))["Tgid"]); err == nil {
		pid = tgid // of a thread the process
	}
	if pid == s.top || pid == os.Getpid() {
		return true
	}
	if slices.Contains(ancestors(pid), s.top) {
		return true
	}
	// A parent that is pid 1, or in another pid namespace, or came from one to wait
	// for us: this one is our own, unless an emperor is in it.
	above := parent(s.top)
	if (above <= 1 || parent(above) == 0) && !slices.ContainsFunc(append(ancestors(pid), pid), isEmperor) {
		return true
	}
	its := network(strconv.Itoa(pid))
	return its != "" && its == network("self")
}

func isEmperor(pid int) bool {
	words, _ := os.ReadFile(procPath(pid, "cmdline"))
	return strings.Contains(string(words), "\x00run\x00")
}

// foreign are the processes that are seen and not ours.
func (s *Site) foreign() (pids []int) {
	for _, pid := range numbers("/proc") {
		if !s.ours(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
