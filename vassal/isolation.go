package vassal

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Isolation is what an ini asks for beside its network: namespaces, a root of
// its own, cgroups.
type Isolation struct {
	Unshare uintptr `json:"unshare,omitempty"` // CLONE_NEW…, beside the emperor's own

	Root     string `json:"root,omitempty"`     // of namespace: the app sees nothing outside of it
	Rootfs   bool   `json:"rootfs,omitempty"`   // Root is that of rootfs, which the emperor furnishes
	Users    bool   `json:"users,omitempty"`    // userns = auto
	Hostname string `json:"hostname,omitempty"` // of namespace
	RootNet  bool   `json:"root_net,omitempty"` // namespace-net
	Keep     []Keep `json:"keep,omitempty"`

	PivotRoot string `json:"pivot_root,omitempty"` // the new root, a mount
	PivotOld  string `json:"pivot_old,omitempty"`  // where the old one is then, below the new

	Setns string   `json:"setns,omitempty"` // the socket of another, whose namespaces are joined
	Serve string   `json:"serve,omitempty"` // the socket of setns-socket
	Skip  []string `json:"skip,omitempty"`  // namespaces that are not served, as in /proc/PID/ns

	Cgroups    []string `json:"cgroups,omitempty"`
	CgroupOpts []string `json:"cgroup_opts,omitempty"` // FILE=VALUE
	CgroupMode *int     `json:"cgroup_mode,omitempty"` // of cgroups that are made; nil: 0700

	At map[string]ini.Pos `json:"at,omitempty"` // where the options are, for errors
}

// Keep is a mount that namespace leaves to the app.
type Keep struct {
	Source string `json:"source"`
	Target string `json:"target"` // seen from the new root
}

// defaultCgroupMode is uWSGI's.
const defaultCgroupMode = 0o700

// Namespaces are the CLONE_NEW… flags that the ini asks for.
func (i *Isolation) Namespaces() uintptr {
	flags := i.Unshare
	if i.Root != "" {
		flags |= unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		if i.RootNet {
			flags |= unix.CLONE_NEWNET
		}
	}
	return flags
}

// OwnRoot says whether the ini brings a root, which it furnishes itself.
func (i *Isolation) OwnRoot(chroot string) bool {
	return chroot != "" || i.Root != "" || i.PivotRoot != ""
}

// RootOnly are the options in use that only root's inis may have: each would
// give an owner something that is not his.
func (i *Isolation) RootOnly() []string {
	var names []string
	for name, used := range map[string]bool{
		"namespace": i.Root != "" && !i.Rootfs || i.Hostname != "" || len(i.Keep) > 0, "rootfs": i.Rootfs && !i.Users, "pivot_root": i.PivotRoot != "" || i.PivotOld != "",
		"setns": i.Setns != "", "setns-socket": i.Serve != "",
		"cgroup": len(i.Cgroups) > 0, "cgroup-opt": len(i.CgroupOpts) > 0, "cgroup-dir-mode": i.CgroupMode != nil,
	} {
		if used {
			names = append(names, name)
		}
	}
	return slices.Sorted(slices.Values(names))
}

// namespaceWords are uWSGI's. A vassal is a process of its own, which shares
// nothing that the words with a 0 would part.
var namespaceWords = map[string]uintptr{
	"net": unix.CLONE_NEWNET, "pid": unix.CLONE_NEWPID, "ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "user": unix.CLONE_NEWUSER,
	"fs": unix.CLONE_NEWNS, "ns": unix.CLONE_NEWNS, "mnt": unix.CLONE_NEWNS, "mount": unix.CLONE_NEWNS,
	"files": 0, "io": 0, "sysvsem": 0,
}

// allNamespaces are the flags that the words can give.
const allNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWUSER | unix.CLONE_NEWNS

// ParseNamespaces reads the list of emperor-use-clone and unshare.
func ParseNamespaces(list string) (uintptr, error) {
	var flags uintptr
	for word := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		flag, ok := namespaceWords[word]
		if !ok {
			return 0, fmt.Errorf("unknown namespace %q; want some of net pid ipc uts user fs", word)
		}
		flags |= flag
	}
	return flags, nil
}

// NamespaceText is the list of namespaces as unshare has it.
func NamespaceText(flags uintptr) string {
	var words []string
	for _, word := range []string{"net", "pid", "ipc", "uts", "user", "fs"} {
		if flags&namespaceWords[word] != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

// isolationOptions are part of Options.
var isolationOptions = []ini.Option[Config]{
	{
		Name: "unshare", Aliases: []string{"unshare2"}, Kind: ini.List, Since: "0.1", Repeats: true, Set: isolated("unshare", setUnshare),
		Meaning: "namespaces of the vassal's own beside those of emperor-use-clone: net pid ipc uts user fs (or ns, mnt, mount)",
	},
	{
		Name: "pivot_root", Aliases: []string{"pivot-root"}, Kind: ini.Text, Since: "0.1", Set: isolated("pivot_root", setPivotRoot),
		Meaning: "NEW OLD: the mount NEW becomes the vassal's root before the hooks as-root, which find the old one in OLD, a folder below NEW",
	},
	{
		Name: "namespace", Aliases: []string{"ns"}, Kind: ini.Text, Since: "0.1", Set: isolated("namespace", setNamespace),
		Meaning: "ROOTFS[:HOSTNAME]: a root, a hostname, processes and IPC of the vassal's own; of other mounts it sees those of namespace-keep-mount",
	},
	{
		Name: "namespace-net", Aliases: []string{"ns-net"}, Kind: ini.Bool, Since: "0.1",
		Meaning: "with namespace: a network namespace of its own too",
		Set:     isolated("namespace-net", func(i *Isolation, p ini.Pair) error { i.RootNet = ini.ParseBool(p.Value); return nil }),
	},
	{
		Name: "namespace-keep-mount", Aliases: []string{"ns-keep-mount"}, Kind: ini.Text, Since: "0.1", Repeats: true, Set: isolated("namespace-keep-mount", addKeep),
		Meaning: "[SOURCE:]TARGET: what lies at SOURCE on the host is at TARGET in the root of namespace",
	},
	{
		Name: "setns", Kind: ini.Path, Since: "0.1", Set: isolated("setns", func(i *Isolation, p ini.Pair) error { return absolute("setns", &i.Setns, p) }),
		Meaning: "the setns-socket of another process, trusted as root is, whose namespaces the vassal joins",
	},
	{
		Name: "setns-socket", Kind: ini.Path, Since: "0.1", Set: isolated("setns-socket", func(i *Isolation, p ini.Pair) error { return absolute("setns-socket", &i.Serve, p) }),
		Meaning: "a socket, for root alone, where others get the vassal's namespaces while it runs",
	},
	{
		Name: "setns-socket-skip", Aliases: []string{"setns-skip"}, Kind: ini.Text, Since: "0.1", Repeats: true, Set: isolated("setns-socket-skip", addSkip),
		Meaning: "a namespace that setns-socket keeps to itself, by its name in /proc/self/ns; user is never given",
	},
	{
		Name: "cgroup", Kind: ini.Path, Since: "0.1", Repeats: true, Set: isolated("cgroup", addCgroup),
		Meaning: "a cgroup that the vassal runs in, of a v1 or the v2 tree, made if it is not there",
	},
	{
		Name: "cgroup-opt", Kind: ini.Text, Since: "0.1", Repeats: true, Set: isolated("cgroup-opt", addCgroupOpt),
		Meaning: "FILE=VALUE: written to that file of each cgroup that has it",
	},
	{
		Name: "cgroup-dir-mode", Kind: ini.Int, Since: "0.1", Set: isolated("cgroup-dir-mode", setCgroupMode),
		Meaning: "the mode of cgroups, in octal (700)",
	},
}

// isolated is the Set of one of the options, which notes where it is. What is
// wrong is not kept, so that it is said once.
func isolated(name string, set func(*Isolation, ini.Pair) error) func(*Config, ini.Pair) error {
	return func(c *Config, p ini.Pair) error {
		i := c.Isolation
		if err := set(&i, p); err != nil {
			return err
		}
		i.note(name, p.Pos)
		c.Isolation = i
		return nil
	}
}

// note keeps where an option is.
func (i *Isolation) note(name string, pos ini.Pos) {
	if i.At == nil {
		i.At = map[string]ini.Pos{}
	}
	i.At[name] = pos
}

func setUnshare(i *Isolation, p ini.Pair) error {
	flags, err := ParseNamespaces(p.Value)
	i.Unshare |= flags
	return err
}

func setPivotRoot(i *Isolation, p ini.Pair) error {
	words := strings.Fields(p.Value)
	if len(words) != 2 {
		return fmt.Errorf("want NEW OLD, got %q", p.Value)
	}
	i.PivotRoot, i.PivotOld = filepath.Clean(words[0]), filepath.Clean(words[1])
	return i.checkPivot()
}

func setNamespace(i *Isolation, p ini.Pair) error {
	if i.Rootfs {
		return errTwoRoots
	}
	root, hostname, _ := strings.Cut(p.Value, ":")
	i.Root, i.Hostname = filepath.Clean(root), hostname
	return i.checkRoot()
}

// addKeep comes before or after namespace; its root is known when all is read.
func addKeep(i *Isolation, p ini.Pair) error {
	source, target, ok := strings.Cut(p.Value, ":")
	k := Keep{Source: filepath.Clean(source)}
	if ok {
		k.Target = filepath.Clean(target)
	}
	i.Keep = append(i.Keep, k)
	return k.check()
}

// target is where the mount is in the new root; without one in the ini, where
// it was, seen from there.
func (k Keep) target(root string) string {
	if k.Target != "" {
		return k.Target
	}
	if rel, err := filepath.Rel(root, k.Source); err == nil && filepath.IsLocal(rel) {
		return "/" + rel
	}
	return k.Source
}

func addSkip(i *Isolation, p ini.Pair) error {
	i.Skip = append(i.Skip, p.Value)
	return nil
}

func addCgroup(i *Isolation, p ini.Pair) error {
	var dir string
	if err := absolute("cgroup", &dir, p); err != nil {
		return err
	}
	i.Cgroups = append(i.Cgroups, dir)
	return nil
}

func addCgroupOpt(i *Isolation, p ini.Pair) error {
	i.CgroupOpts = append(i.CgroupOpts, p.Value)
	return checkCgroupOpt(p.Value)
}

func checkCgroupOpt(opt string) error {
	file, _, ok := strings.Cut(opt, "=")
	if !ok {
		file, _, ok = strings.Cut(opt, ":")
	}
	if !ok || file == "" || file == "." || file == ".." || strings.ContainsAny(file, "/\x00") {
		return fmt.Errorf("cgroup-opt %.100q: want FILE=VALUE with the name of a cgroup's file, such as memory.max=64M", opt)
	}
	return nil
}

func setCgroupMode(i *Isolation, p ini.Pair) error {
	n, err := strconv.ParseUint(p.Value, 8, 9)
	if err != nil {
		return fmt.Errorf("%q is no mode: want octal digits such as 700", p.Value)
	}
	mode := int(n)
	i.CgroupMode = &mode
	return nil
}
