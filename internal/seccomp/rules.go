package seccomp

import (
	"fmt"
	"slices"
	"strings"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Wish is what is asked of a filter.
type Wish struct {
	Caps    []string // that the app keeps, as in capabilities(7), lower case and without "cap_"
	Strict  bool     // no look into other processes, only plain kinds of sockets
	Counted bool     // ports of TCP are: none by Multipath TCP and SMC, of whose ports Landlock knows nothing
}

// call is a system call by name and number.
type call struct {
	name string
	nr   uint32
}

// rule is what becomes of a system call: the first of its ways whose conditions
// all hold.
type rule struct {
	call
	ways []way
}

type way struct {
	action     uint32 // SECCOMP_RET_…
	conditions []condition
}

// condition is about one argument.
type condition struct {
	arg    uint
	op     specs.LinuxSeccompOperator
	value  uint64
	second uint64 // of a masked comparison: what is left
	narrow bool   // the kernel takes the argument for an int, and so must the comparison
}

const (
	allow = unix.SECCOMP_RET_ALLOW
	deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	nosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// rules are those of a wish, by number. A call that has none is denied.
func rules(w Wish) ([]rule, error) {
	byName := map[string]*rule{}
	for _, group := range profile.DefaultProfile().Syscalls {
		if !applies(group, w.Caps) {
			continue
		}
		for _, name := range group.Names {
			if err := add(byName, name, &group.LinuxSyscall); err != nil {
				return nil, err
			}
		}
	}
	own(byName, w)
	var all []rule
	for _, c := range numbers {
		if r := byName[c.name]; r != nil {
			r.call = c
			all = append(all, *r)
		}
	}
	slices.SortFunc(all, func(a, b rule) int { return int(a.nr) - int(b.nr) })
	return all, nil
}

// applies says whether a group of the list is for this machine and these
// capabilities. Its oldest kernels are older than all that we run on.
func applies(group *profile.Syscall, caps []string) bool {
	holds := func(name string) bool {
		return slices.Contains(caps, strings.TrimPrefix(strings.ToLower(name), "cap_"))
	}
	if f := group.Includes; f != nil {
		if len(f.Arches) > 0 && !slices.Contains(f.Arches, archName) || len(f.Caps) > 0 && !slices.ContainsFunc(f.Caps, holds) {
			return false
		}
	}
	if f := group.Excludes; f != nil {
		if slices.Contains(f.Arches, archName) || slices.ContainsFunc(f.Caps, holds) {
			return false
		}
	}
	return true
}

func add(byName map[string]*rule, name string, from *specs.LinuxSyscall) error {
	w := way{}
	switch from.Action {
	case specs.ActAllow:
		w.action = allow
	case specs.ActErrno:
		w.action = deny
		if from.ErrnoRet != nil {
			w.action = unix.SECCOMP_RET_ERRNO | uint32(*from.ErrnoRet)
		}
	default:
		return fmt.Errorf("the list has %s for %s, which is not known here", from.Action, name)
	}
	for _, a := range from.Args {
		if _, ordered := comparisons[a.Op]; !ordered && a.Op != specs.OpEqualTo && a.Op != specs.OpNotEqual && a.Op != specs.OpMaskedEqual {
			return fmt.Errorf("the list compares an argument of %s by %s, which is not known here", name, a.Op)
		}
		w.conditions = append(w.conditions, condition{arg: a.Index, op: a.Op, value: a.Value, second: a.ValueTwo, narrow: name == "socket"})
	}
	r := byName[name]
	if r == nil {
		r = &rule{}
		byName[name] = r
	}
	r.ways = append(r.ways, w)
	return nil
}

// own are rules of ours over those of the list.
func own(byName map[string]*rule, w Wish) {
	// Typing into a terminal that somebody else reads, and into the console.
	for _, request := range []uint64{unix.TIOCSTI, unix.TIOCLINUX} {
		first(byName, "ioctl", way{action: deny, conditions: []condition{{arg: 1, op: specs.OpEqualTo, value: request, narrow: true}}})
	}
	if w.Strict {
		for _, name := range []string{"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"} {
			delete(byName, name)
		}
		byName["socket"] = &rule{ways: plainSockets()}
	}
	if w.Counted {
		for _, c := range []condition{
			{arg: 2, value: unix.IPPROTO_MPTCP}, {arg: 2, value: unix.IPPROTO_SMC}, {arg: 0, value: unix.AF_SMC},
		} {
			c.op, c.narrow = specs.OpEqualTo, true
			first(byName, "socket", way{action: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT), conditions: []condition{c}})
		}
	}
}

// first puts a way before the others of a call.
func first(byName map[string]*rule, name string, w way) {
	if r := byName[name]; r != nil {
		r.ways = slices.Insert(r.ways, 0, w)
	}
}

// plainSockets are those of programs that only talk to others; of netlink the
// one that lists addresses and routes (getifaddrs(3)).
func plainSockets() (ways []way) {
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6} {
		ways = append(ways, way{action: allow, conditions: []condition{{arg: 0, op: specs.OpEqualTo, value: family, narrow: true}}})
	}
	return append(ways, way{action: allow, conditions: []condition{
		{arg: 0, op: specs.OpEqualTo, value: unix.AF_NETLINK, narrow: true},
		{arg: 2, op: specs.OpEqualTo, value: unix.NETLINK_ROUTE, narrow: true},
	}})
}
