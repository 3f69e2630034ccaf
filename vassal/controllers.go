package vassal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// controllerOf names the kernel's controller of each option, as the v2 tree
// has it.
var controllerOf = map[string]string{LimitCPU: "cpu", LimitMemory: "memory", LimitPIDs: "pids", LimitIO: "io"}

// limitNames are the options in the order in which they are put in force: a
// vassal that grows is stopped first.
var limitNames = []string{LimitPIDs, LimitMemory, LimitCPU, LimitIO}

// legacyName is a controller's name in v1.
func legacyName(controller string) string {
	if controller == "io" {
		return "blkio"
	}
	return controller
}

// Controllers say by what the kernel limits an instance's vassals: each
// controller is in the v2 tree, or in a v1 tree of its own, or nowhere.
type Controllers struct {
	name string            // of the instance's cgroups
	v2   map[string]bool   // those in the v2 tree
	v1   map[string]string // the instance's folder in the v1 tree; it is made when first used
	why  map[string]string // those that are nowhere

	instance Cgroup // of the v2 tree

	mu     sync.Mutex
	leaf   string // the cgroup that the emperor has moved to; empty: it did not have to
	from   Cgroup // where it came from
	oom    oomWatch
	record func(dir string) error // called before a folder of a v1 tree is made
}

// FindControllers looks where the controllers are for cgroups called name below
// the emperor's own, which is empty where there is no v2 tree. It changes
// nothing. record, if any, is told each folder of a v1 tree before it is made.
func FindControllers(own Cgroup, name string, record func(dir string) error) (*Controllers, error) {
	c := &Controllers{name: name, v2: map[string]bool{}, v1: map[string]string{}, why: map[string]string{}, record: record}
	there := own.words("cgroup.controllers")
	for _, controller := range controllerOf {
		if own != "" && slices.Contains(there, controller) {
			c.v2[controller] = true
			continue
		}
		dir, err := ownLegacy(legacyName(controller))
		switch {
		case err != nil:
			return nil, fmt.Errorf("look for the %s controller: %w", controller, err)
		case dir != "":
			c.v1[controller] = filepath.Join(dir, name)
		case own == "":
			c.why[controller] = "no cgroup tree with it is mounted; mount -t cgroup2 none /sys/fs/cgroup"
		default:
			c.why[controller] = fmt.Sprintf("%s does not have it, and no v1 tree of it is mounted; the unit of the emperor needs Delegate=yes, a container a cgroup of its own, the kernel no cgroup_disable=%[2]s",
				own.file("cgroup.controllers"), controller)
		}
	}
	return c, nil
}

// MachineControllers says what this machine has, as far as everybody can know:
// whether a cgroup of the v2 tree was given to an emperor is seen there only.
func MachineControllers() (*Controllers, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return nil, err
	}
	var root Cgroup
	if len(mounts) > 0 {
		root = Cgroup(mounts[len(mounts)-1].Mountpoint)
	}
	return FindControllers(root, "", nil)
}

// DelegatedCgroup is OwnCgroup, or the one above if that is what a service
// manager has given to the emperor and this is only its leaf (DelegateSubgroup
// in systemd.resource-control(5)).
func DelegatedCgroup() (Cgroup, error) {
	own, err := OwnCgroup()
	if err != nil {
		return "", err
	}
	if above := Cgroup(filepath.Dir(string(own))); !own.delegated() && above.delegated() {
		return above, nil
	}
	return own, nil
}

// delegated says whether systemd marks the cgroup as given to somebody.
func (c Cgroup) delegated() bool {
	value := make([]byte, 1)
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(string(c), name, value); err == nil && n == 1 && value[0] == '1' {
			return true
		}
	}
	return false
}

// leafOf is where an emperor moves that may not stay above its instance's cgroup.
const leafOf = ".emperor"

// RemoveLeaf removes the cgroup that the emperor of an instance's cgroup had
// moved to. Nobody may be in it.
func (c Cgroup) RemoveLeaf() error { return unlessGone(unix.Rmdir(string(c) + leafOf)) }

// Lacks says which limit cannot be, and why; empty if all can.
func (c *Controllers) Lacks(r *Resources) (option string, err error) {
	for _, name := range limitNames {
		controller := controllerOf[name]
		if r.Text(name) == "" {
			continue
		}
		if c == nil {
			return name, fmt.Errorf("%s: nobody looked for the %s controller", name, controller)
		}
		if why, missing := c.why[controller]; missing {
			return name, fmt.Errorf("%s = %s: no %s controller: %s", name, r.Text(name), controller, why)
		}
	}
	return "", nil
}

// Where says for each option by what it is in force: v2, v1, or why not.
func (c *Controllers) Where(option string) (where string, ok bool) {
	controller := controllerOf[option]
	if c.v2[controller] {
		return "v2", true
	}
	if c.v1[controller] != "" {
		return "v1", true
	}
	return c.why[controller], false
}

// Below says that generations are below this cgroup of the v2 tree.
func (c *Controllers) Below(instance Cgroup) { c.instance = instance }

// switchOn switches a controller of the v2 tree on for the instance's
// generations, when the first limit needs it: the kernel does that only where
// no process is in the cgroup above, so an emperor that is alone there moves
// into a cgroup of its own.
func (c *Controllers) switchOn(controller string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	above := Cgroup(filepath.Dir(string(c.instance)))
	err := above.enable(controller)
	for range moveRounds {
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		if err = c.moveOut(above); err == nil {
			err = above.enable(controller)
		}
	}
	if err != nil {
		return err
	}
	return c.instance.enable(controller)
}

// moveRounds bounds the attempts to move a process that starts others meanwhile.
const moveRounds = 100

// enable switches a controller on for the cgroups below c.
func (c Cgroup) enable(controller string) error {
	if slices.Contains(c.words("cgroup.subtree_control"), controller) {
		return nil
	}
	if err := os.WriteFile(c.file("cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
		return fmt.Errorf("switch it on below %s: %w", c, err)
	}
	return nil
}

// words are those of one of c's files; none if it cannot be read.
func (c Cgroup) words(file string) []string {
	b, err := os.ReadFile(c.file(file))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// moveOut moves the emperor, with what it has just started, into a cgroup below
// its own. Others who are there are not ours to move.
func (c *Controllers) moveOut(from Cgroup) error {
	leaf, err := from.Make(c.name + leafOf)
	if err != nil {
		return err
	}
	us := strconv.Itoa(os.Getpid())
	for _, pid := range from.words("cgroup.procs") {
		if parent, err := parentOf(pid); pid != us && err == nil && parent != us {
			err := fmt.Errorf("process %s is in the cgroup %s beside the emperor, and as long as there are processes in it nothing below it can be limited; start the emperor by a unit with Delegate=yes, or in a cgroup of its own", pid, from)
			if c.leaf == "" {
				err = errors.Join(err, unix.Rmdir(string(leaf)))
			}
			return err
		}
	}
	c.leaf, c.from = string(leaf), from
	for _, pid := range from.words("cgroup.procs") {
		n, err := strconv.Atoi(pid)
		if err == nil {
			err = enter(string(leaf), n)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// parentOf reads who has started a process.
func parentOf(pid string) (string, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return "", fmt.Errorf("/proc/%s/stat has %d fields", pid, len(fields))
	}
	return fields[1], nil
}

// Close ends the watch for out of memory, removes what the instance had in v1
// trees, and takes the emperor back to where it came from. No vassal may run.
func (c *Controllers) Close() error {
	errs := []error{c.oom.close()}
	for _, dir := range c.v1 {
		errs = append(errs, unlessGone(unix.Rmdir(dir)))
	}
	if c.leaf != "" {
		errs = append(errs, c.moveBack())
	}
	return errors.Join(errs...)
}

// moveBack undoes moveOut. As long as another instance needs the controllers
// the emperor stays where it is, and its next start finds the leaf there.
func (c *Controllers) moveBack() error {
	for _, controller := range c.from.words("cgroup.subtree_control") {
		err := os.WriteFile(c.from.file("cgroup.subtree_control"), []byte("-"+controller), 0)
		if errors.Is(err, unix.EBUSY) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(enter(string(c.from), os.Getpid()), unix.Rmdir(c.leaf))
}

func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// enter moves a process, with all its threads, into a cgroup.
func enter(dir string, pid int) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("enter cgroup %s: %w", dir, err)
	}
	return nil
}

// ownLegacy is the caller's cgroup in the v1 tree of a controller; "" without
// such a tree. A mount that shows another part of the tree is taken as it is.
func ownLegacy(controller string) (string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" || !slices.Contains(strings.Split(m.VFSOptions, ","), controller), false
	})
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	mount := mounts[len(mounts)-1] // of several at one place the newest is seen
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), ":")
		names, path, _ := strings.Cut(rest, ":")
		if !slices.Contains(strings.Split(names, ","), controller) {
			continue
		}
		rel, err := filepath.Rel(mount.Root, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			rel = "."
		}
		return filepath.Join(mount.Mountpoint, rel), nil
	}
	return mount.Mountpoint, nil
}

// Conflict says which of an ini's cgroups of v1 trees would take its processes
// away from a limit.
func (c *Controllers) Conflict(r *Resources, i *Isolation) error {
	for _, dir := range i.Cgroups {
		at, err := nearestMount(dir)
		if err != nil {
			return err
		}
		for _, option := range limitNames {
			controller := controllerOf[option]
			if r.Text(option) != "" && c.v1[controller] != "" && at.FSType == "cgroup" && slices.Contains(strings.Split(at.VFSOptions, ","), legacyName(controller)) {
				return fmt.Errorf("cgroup %s is in the v1 tree of %s, where a process is in one cgroup only, and %s = %s has another; leave one of them out (in the emperor's ini it is every vassal's)",
					dir, legacyName(controller), option, r.Text(option))
			}
		}
	}
	return nil
}
