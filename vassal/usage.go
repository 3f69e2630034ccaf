package vassal

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the processes of a generation use together.
type Usage struct {
	Memory    uint64        // bytes; with the page cache where a memory controller counts, else what is resident
	CPU       time.Duration // since the start; without a v2 tree of those who live
	PIDs      int           // processes and threads
	Throttled time.Duration // that limit-cpu made them wait
}

// Usage reads what the generation uses from the kernel's counters: those of its
// cgroups, and where no controller counts of its processes. Some files are
// read; nothing is kept. A generation that has ended uses nothing.
func (g *Generation) Usage() Usage {
	files := g.launch.Budget.folders()
	u := g.spent(files)
	g.addHeld(&u, files)
	return u
}

// spent is the CPU time that was used, as far as cgroups count it.
func (g *Generation) spent(files map[string]string) (u Usage) {
	if g.cgroup != "" {
		u.readCPU(g.cgroup.file("cpu.stat"))
	}
	if dir := files["cpu"]; dir != "" {
		u.readCPU(filepath.Join(dir, "cpu.stat"))
	}
	return u
}

// addHeld adds what the processes have: memory, and themselves.
func (g *Generation) addHeld(u *Usage, files map[string]string) {
	v2 := func(controller string) bool {
		return g.cgroup != "" && g.launch.Budget != nil && g.launch.Budget.controllers.v2[controller]
	}
	memory, pids := "", ""
	switch {
	case v2("memory"):
		memory = g.cgroup.file("memory.current")
	case files["memory"] != "":
		memory = filepath.Join(files["memory"], "memory.usage_in_bytes")
	}
	switch {
	case v2("pids"):
		pids = g.cgroup.file("pids.current")
	case files["pids"] != "":
		pids = filepath.Join(files["pids"], "pids.current")
	}
	bytes, counted := readNumber(memory)
	tasks, listed := readNumber(pids)
	reaper := g.reaper()
	if !counted || !listed || g.cgroup == "" {
		u.addProcesses(slices.DeleteFunc(g.everybody(), func(pid int) bool { return pid == reaper }))
	}
	if counted {
		u.Memory = bytes
	}
	if listed {
		u.PIDs = max(int(tasks)-tasksOf(reaper), 0)
	}
}

// reaper is the process that is ours, and does not count as the vassal's; 0:
// there is none.
func (g *Generation) reaper() int {
	if !g.reaped || g.base != nil {
		return 0
	}
	return g.pid
}

// usageTime is how long what was read serves others who look, too. It is
// shorter than the second of who looks again and again, and makes rates of it.
const (
	usageTime = 500 * time.Millisecond
	youngTime = 2 * time.Second
	idleTime  = 5 * time.Minute // the kernel may take memory even from who does nothing
)

// recentUsage is what was read last.
type recentUsage struct {
	mu   sync.Mutex
	read time.Time
	held time.Time // when memory and processes were read
	was  Usage
}

// RecentUsage is Usage, as of now or a moment ago: many may look at once. What a
// process uses that has just begun says nothing a moment later. Who has had no
// CPU time since has the processes and the memory that he had, so that most of
// many vassals cost one small file.
func (g *Generation) RecentUsage() Usage {
	g.recent.mu.Lock()
	defer g.recent.mu.Unlock()
	r, now := &g.recent, time.Now()
	young := r.read.Sub(g.Started) < youngTime
	if !young && now.Sub(r.read) <= usageTime {
		return r.was
	}
	files := g.launch.Budget.folders()
	u := g.spent(files)
	if idle := g.cgroup != "" && u.CPU > 0 && u.CPU == r.was.CPU; idle && !young && now.Sub(r.held) < idleTime {
		u.Memory, u.PIDs = r.was.Memory, r.was.PIDs
	} else {
		g.addHeld(&u, files)
		r.held = now
	}
	r.was, r.read = u, now
	return u
}

// Limit changes what the running generation may use.
func (g *Generation) Limit(r Resources) error {
	b := g.launch.Budget
	if b == nil || !b.changeable(&r) {
		return errors.New("without a cgroup v2 tree a limit begins with a start")
	}
	return errors.Join(b.Set(r), g.exempt())
}

// CountKilled looks now for processes that were killed for memory, and tells of
// them.
func (g *Generation) CountKilled() { g.launch.Budget.Kills() }

// everybody is who is known to belong to the generation.
func (g *Generation) everybody() []int {
	if g.cgroup != "" {
		return g.cgroup.everybody()
	}
	for _, dir := range g.launch.Budget.folders() {
		return Cgroup(dir).everybody()
	}
	return []int{g.PID}
}

// folders are those in v1 trees, by controller.
func (b *Budget) folders() map[string]string {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.dirs)
}

// readCPU takes what a cpu.stat has: the v2 tree's has the use, with or without
// a controller; that of v1 only how long they were kept waiting.
func (u *Usage) readCPU(path string) {
	b, err := slurp(path)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		key, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseInt(number, 10, 64)
		switch key {
		case "usage_usec":
			u.CPU = time.Duration(n) * time.Microsecond
		case "throttled_usec":
			u.Throttled = time.Duration(n) * time.Microsecond
		case "throttled_time":
			u.Throttled = time.Duration(n)
		}
	}
}

// slurp reads a small file of the kernel's in three system calls, where
// os.ReadFile needs twice as many: of a thousand vassals that is what counts.
func slurp(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const most = 4096
	b := make([]byte, most)
	n, err := unix.Read(fd, b)
	_ = unix.Close(fd)
	if n == most {
		return os.ReadFile(path) // there may be more
	}
	return b[:max(n, 0)], err
}

func readNumber(path string) (uint64, bool) {
	if path == "" {
		return 0, false
	}
	b, err := slurp(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// Fields of /proc/PID/stat after the command's name (proc_pid_stat(5)), and the
// unit of its times.
const (
	statUserTime   = 11
	statSystemTime = 12
	statThreads    = 17
	statResident   = 21 // pages
	clockTick      = 10 * time.Millisecond
)

// addProcesses adds what processes say of themselves. CPU time is theirs only
// where no cgroup counts it.
func (u *Usage) addProcesses(pids []int) {
	var spent time.Duration
	for _, pid := range pids {
		number := statOf(pid)
		spent += time.Duration(number(statUserTime)+number(statSystemTime)) * clockTick
		u.PIDs += int(number(statThreads))
		u.Memory += uint64(number(statResident)) * uint64(os.Getpagesize())
	}
	if u.CPU == 0 {
		u.CPU = spent
	}
}

// tasksOf is how many threads a process has; none if it is gone.
func tasksOf(pid int) int {
	if pid == 0 {
		return 0
	}
	return int(statOf(pid)(statThreads))
}

// statOf reads what the kernel says of a process in numbers, all 0 of one that
// is gone.
func statOf(pid int) func(field int) int64 {
	b, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if err != nil || len(fields) <= statResident {
		return func(int) int64 { return 0 }
	}
	return func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field], 10, 64)
		return n
	}
}
