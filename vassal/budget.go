package vassal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	legacy "github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
)

// Budget is what a generation may use, in force: its cgroup of the v2 tree and
// its folders of v1 trees, which are made before its first process, as far as
// their limits are asked for.
type Budget struct {
	controllers *Controllers
	name        string
	cgroup      Cgroup       // the generation's; empty without a v2 tree
	short       func(uint64) // told how many processes were killed for memory since the last time

	mu       sync.Mutex
	removed  bool              // nothing is put in force any more
	dirs     map[string]string // folders of v1 trees, by controller
	inForce  Resources
	exempted int         // processes and threads that limit-pids does not mean
	oom      *oomWatched // nil: there is no memory controller to ask
	kills    uint64
}

// Budget puts the limits of a generation in force, for a cgroup of its own that
// nobody is in yet. short, which may be nil, is told of processes that the
// kernel killed because the memory was at its limit.
func (c *Controllers) Budget(name string, cgroup Cgroup, r Resources, short func(killed uint64)) (*Budget, error) {
	b := &Budget{controllers: c, name: name, cgroup: cgroup, short: short, dirs: map[string]string{}}
	if err := b.Set(r); err != nil {
		return nil, errors.Join(err, b.Remove(context.Background()))
	}
	return b, nil
}

// ResumeBudget takes over what another emperor has put in force for a
// generation that still runs. Of kills for memory only later ones are told.
func (c *Controllers) ResumeBudget(name string, cgroup Cgroup, r Resources, short func(killed uint64)) (*Budget, error) {
	b := &Budget{controllers: c, name: name, cgroup: cgroup, dirs: map[string]string{}, inForce: r}
	for controller, above := range c.v1 {
		dir := filepath.Join(above, name)
		if _, err := os.Stat(dir); err == nil {
			b.dirs[controller] = dir
		}
	}
	b.count()
	b.short = short
	return b, b.watch()
}

// Set changes the limits, of running processes too. What fails leaves some of
// them as they were.
func (b *Budget) Set(r Resources) error {
	if _, err := b.controllers.Lacks(&r); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.removed {
		return errors.New("the generation has ended")
	}
	if err := b.enable(&r); err != nil {
		return err
	}
	for _, option := range limitNames {
		if err := b.force(option, &r); err != nil {
			return fmt.Errorf("%s = %s: %w", option, r.Text(option), err)
		}
		b.inForce.take(option, &r) // it is lifted by the next Set, even if this one fails half-way
	}
	b.inForce = r
	return b.watch()
}

// exempt raises limit-pids by processes and threads of our own.
func (b *Budget) exempt(tasks int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.removed || tasks == 0 || tasks == b.exempted {
		return nil
	}
	b.exempted = tasks
	r := b.inForce
	if err := b.force(LimitPIDs, &r); err != nil {
		return fmt.Errorf("%s = %s: %w", LimitPIDs, r.Text(LimitPIDs), err)
	}
	return nil
}

// enable switches the controllers of the limits on, for the instance's
// generations or in the cgroup that the ini has put this one below.
func (b *Budget) enable(r *Resources) error {
	for _, option := range limitNames {
		controller := controllerOf[option]
		if b.cgroup == "" || !b.controllers.v2[controller] || r.Text(option) == "" || b.has(controller) {
			continue
		}
		above, err := Cgroup(filepath.Dir(string(b.cgroup))), error(nil)
		if above == b.controllers.instance {
			err = b.controllers.switchOn(controller)
		} else {
			err = above.enable(controller)
		}
		if err != nil {
			return fmt.Errorf("%s = %s: %w", option, r.Text(option), err)
		}
	}
	return nil
}

// has says whether the generation's cgroup of the v2 tree has a controller.
func (b *Budget) has(controller string) bool {
	return slices.Contains(b.cgroup.words("cgroup.controllers"), controller)
}

// force writes one limit where it is in force; one that was and is none is not
// written.
func (b *Budget) force(option string, r *Resources) error {
	controller := controllerOf[option]
	if r.Text(option) == "" && b.inForce.Text(option) == "" {
		return nil
	}
	if b.controllers.v2[controller] {
		m, err := fs2.NewManager(&cgroups.Cgroup{}, string(b.cgroup))
		if err != nil {
			return err
		}
		return m.Set(b.values(option, r, true))
	}
	dir, err := b.folder(controller)
	if err != nil {
		return err
	}
	return legacyWriter(controller).Set(dir, b.values(option, r, false))
}

// legacyWriter writes a controller's files of v1. It is a new one each time:
// the library's manager shares state among all that it writes for.
func legacyWriter(controller string) interface {
	Set(dir string, r *cgroups.Resources) error
} {
	switch controller {
	case "cpu":
		return &legacy.CpuGroup{}
	case "memory":
		return &legacy.MemoryGroup{}
	case "pids":
		return &legacy.PidsGroup{}
	}
	return &legacy.BlkioGroup{}
}

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100_000

// values is one limit as the library takes it.
func (b *Budget) values(option string, r *Resources, v2 bool) *cgroups.Resources {
	out := &cgroups.Resources{}
	switch option {
	case LimitCPU:
		out.CpuPeriod, out.CpuQuota = cpuPeriod, Unlimited
		if r.CPU > 0 {
			out.CpuQuota = int64(r.CPU) * cpuPeriod / 1000
		}
	case LimitMemory:
		out.Memory, out.MemorySwap = max(r.Memory, Unlimited), max(r.Memory, Unlimited)
		if r.Memory == 0 {
			out.Memory, out.MemorySwap = Unlimited, Unlimited
		}
		if _, err := os.Stat(filepath.Join(b.dirs["memory"], "memory.memsw.limit_in_bytes")); err != nil && !v2 {
			out.MemorySwap = 0 // this kernel does not count what is swapped out
		}
	case LimitPIDs:
		n := int64(Unlimited)
		if r.PIDs > 0 {
			n = int64(r.PIDs + b.exempted)
		}
		out.PidsLimit = &n
	case LimitIO:
		b.ioValues(out, r, v2)
	}
	return out
}

// ioValues writes every rate of every device, also of those that are not
// limited any more.
func (b *Budget) ioValues(out *cgroups.Resources, r *Resources, v2 bool) {
	all := map[string]IOLimit{}
	for _, l := range b.inForce.IO {
		all[l.Device] = IOLimit{Device: l.Device}
	}
	for _, l := range r.IO {
		all[l.Device] = l
	}
	var lines []string
	for _, l := range all {
		line := []string{l.Device}
		for i, rate := range l.rates() {
			value := "max"
			if *rate.n > 0 {
				value = strconv.FormatUint(*rate.n, 10)
			}
			line = append(line, rate.word+"="+value)
			var major, minor int64
			_, _ = fmt.Sscanf(l.Device, "%d:%d", &major, &minor) // which was checked
			list := []*[]*cgroups.ThrottleDevice{
				&out.BlkioThrottleReadBpsDevice, &out.BlkioThrottleWriteBpsDevice,
				&out.BlkioThrottleReadIOPSDevice, &out.BlkioThrottleWriteIOPSDevice,
			}[i]
			*list = append(*list, cgroups.NewThrottleDevice(major, minor, *rate.n)) // 0 is none in v1
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if v2 {
		*out = cgroups.Resources{Unified: map[string]string{"io.max": strings.Join(lines, "\n")}}
	}
}

// folder is the generation's in a v1 tree. If it has to be made, who runs
// already is moved into it.
func (b *Budget) folder(controller string) (string, error) {
	if dir := b.dirs[controller]; dir != "" {
		return dir, nil
	}
	above := b.controllers.v1[controller]
	if b.controllers.record != nil {
		if err := b.controllers.record(above); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(above, b.name)
	for _, d := range []string{above, dir} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make cgroup: %w", err)
		}
	}
	b.dirs[controller] = dir
	return dir, b.gather(dir)
}

// gatherRounds bounds the chase after processes that are born meanwhile.
const gatherRounds = 1000

// gather moves the generation's processes into a folder until none is outside.
func (b *Budget) gather(dir string) error {
	if b.cgroup == "" {
		return nil // nobody runs yet: see changeable
	}
	for range gatherRounds {
		in := map[string]bool{}
		for _, pid := range Cgroup(dir).words("cgroup.procs") {
			in[pid] = true
		}
		moved := false
		for _, pid := range b.cgroup.everybody() {
			if in[strconv.Itoa(pid)] {
				continue
			}
			if err := enter(dir, pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			moved = true
		}
		if !moved {
			return nil
		}
	}
	return fmt.Errorf("processes are born faster than they can be moved into %s", dir)
}

// changeable says whether Set can put r in force while processes run: without a
// v2 tree nobody knows them all, so no limit can come where there was none.
func (b *Budget) changeable(r *Resources) bool {
	if b.cgroup != "" {
		return true
	}
	dirs := b.folders()
	for _, option := range limitNames {
		if r.Text(option) != "" && dirs[controllerOf[option]] == "" {
			return false
		}
	}
	return true
}

// Enter moves a process that does nothing yet under the limits of v1 trees. In
// the v2 tree it was born there.
func (b *Budget) Enter(pid int) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, dir := range b.dirs {
		if err := enter(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// InForce are the limits.
func (b *Budget) InForce() Resources {
	if b == nil {
		return Resources{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inForce
}

// Remove ends what is left in the folders of v1 trees and removes them.
func (b *Budget) Remove(ctx context.Context) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	oom, dirs := b.oom, b.dirs
	b.removed, b.oom, b.dirs = true, nil, map[string]string{}
	b.mu.Unlock()
	errs := []error{oom.close()}
	for _, controller := range []string{"pids", "memory", "cpu", "io"} { // pids first: nobody is born any more
		if dir := dirs[controller]; dir != "" {
			errs = append(errs, RemoveLegacy(ctx, dir))
		}
	}
	return errors.Join(errs...)
}

// RemoveLegacy kills who is in a cgroup of a v1 tree, which no cgroup.kill does,
// and removes it with those below it.
func RemoveLegacy(ctx context.Context, dir string) error {
	wait := time.Millisecond
	for {
		_ = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("0"), 0) // of a pids tree
		Cgroup(dir).killEach()
		err := Cgroup(dir).removeTree()
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
