package vassal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
)

// Observed is what the kernel says of a process of a vassal's, now.
type Observed struct {
	PID          int
	UID          int      // its effective one
	IDs          []int    // all of its uids, gids and groups
	Capabilities []string // permitted, effective, inheritable or ambient
	NoNewPrivs   bool
	Filtered     bool     // its system calls are
	Shared       []string // namespaces that are the emperor's own, as in /proc/PID/ns
	Listens      []uint16 // TCP ports on which somebody in its network namespace does
	OwnRoot      bool     // a root of its own
	Tmp          bool     // its /tmp is the host's; the same of Run and Dev
	Run, Dev     bool
	Machine      bool     // /proc and /sys show what is the machine's
	Open         []string // mounts that it may write, beside private ones and those that its ini names
	Setuid       []string // mounts without nosuid
	Executable   []string // mounts that it may write and execute from

	sealed func(path string) bool // nothing that it may write
}

// Sealed says whether what is at a path cannot be written, whatever its modes say.
func (o *Observed) Sealed(path string) bool { return o.sealed(path) }

// observedNamespaces are those that are told.
var observedNamespaces = []string{"pid", "mnt", "ipc", "uts", "cgroup", "net"}

// ErrEnded says that no process of the generation runs any more.
var ErrEnded = errors.New("its process has just ended")

// Observe reads what the kernel says of the generation's app. It looks at no file
// of the app's, and so waits for nothing that the app could hold up.
func (g *Generation) Observe() (*Observed, error) {
	if g.PID == 0 {
		return nil, ErrEnded
	}
	o := &Observed{PID: g.PID}
	err := errors.Join(o.readRights(), o.readNamespaces(), o.readListens())
	if err == nil {
		err = o.readMounts(g.launch.Plan.Confined)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.over || g.waited || !g.holdsPID() || g.isZombie():
		return nil, ErrEnded
	case err != nil:
		return nil, fmt.Errorf("what the kernel says of its process: %w", err)
	}
	return o, nil
}

func (o *Observed) readRights() error {
	fields, err := statusFields(o.PID)
	if err != nil {
		return err
	}
	numbers := func(field string) (all []int) {
		for word := range strings.FieldsSeq(fields[field]) {
			n, aerr := strconv.Atoi(word)
			err = errors.Join(err, aerr)
			all = append(all, n)
		}
		return all
	}
	uids := numbers("Uid")
	if len(uids) < 2 {
		return errors.New("it has no uid")
	}
	o.UID, o.IDs = uids[1], slices.Concat(uids, numbers("Gid"), numbers("Groups"))
	var has uint64
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		bits, perr := strconv.ParseUint(fields[set], 16, 64)
		err = errors.Join(err, perr)
		has |= bits
	}
	for c := range capability.Cap(64) {
		if has&(1<<c) != 0 {
			o.Capabilities = append(o.Capabilities, strings.ToLower(c.String()))
		}
	}
	o.NoNewPrivs, o.Filtered = fields["NoNewPrivs"] == "1", fields["Seccomp"] == "2"
	return err
}

func (o *Observed) readNamespaces() error {
	for _, kind := range observedNamespaces {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", o.PID, kind))
		if errors.Is(err, os.ErrNotExist) && kind == "cgroup" {
			continue // a kernel without them
		}
		ours, oerr := os.Readlink("/proc/self/ns/" + kind)
		if err := errors.Join(err, oerr); err != nil {
			return err
		}
		if ours == theirs {
			o.Shared = append(o.Shared, kind)
		}
	}
	return nil
}

// readListens reads the beginning of two lists in which listeners are the first.
func (o *Observed) readListens() error {
	if slices.Contains(o.Shared, "net") {
		return nil // others listen there, too
	}
	const most = 256 << 10
	for _, list := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", o.PID, list))
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(f, most))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			const listens = "0A"
			fields := strings.Fields(s.Text())
			if len(fields) < 4 || fields[3] != listens {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil && !slices.Contains(o.Listens, uint16(port)) {
				o.Listens = append(o.Listens, uint16(port))
			}
		}
	}
	slices.Sort(o.Listens)
	return nil
}
