package vassal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Bounds of what an ini may list.
const (
	maxKeeps    = 100
	maxCgroups  = 32
	maxHostname = 64 // __NEW_UTS_LEN
)

// check says what no parser can have given.
func (i *Isolation) check() (ini.Pos, error) {
	for _, c := range []struct {
		option string
		err    error
	}{
		{"unshare", i.checkUnshare()},
		{"namespace", i.checkRoot()},
		{"namespace-keep-mount", i.checkKeeps()},
		{"pivot_root", i.checkPivot()},
		{"setns", checkPath("setns", i.Setns)},
		{"setns-socket", i.checkServe()},
		{"cgroup", i.checkCgroups()},
	} {
		if c.err != nil {
			return i.At[c.option], c.err
		}
	}
	return ini.Pos{}, nil
}

func checkPath(what, path string) error {
	if path != "" && (!filepath.IsAbs(path) || len(path) > maxPath || hasNUL(path)) {
		return fmt.Errorf("%s %.100q: want an absolute path of at most %d bytes", what, path, maxPath)
	}
	return nil
}

func (i *Isolation) checkUnshare() error {
	if i.Unshare&^allNamespaces != 0 {
		return fmt.Errorf("unshare: %#x has flags that are no namespaces", i.Unshare)
	}
	return nil
}

func (i *Isolation) checkRoot() error {
	switch {
	case i.Root == "/":
		return errors.New("namespace: / is the host's root; name the folder of another, such as one that debootstrap made")
	case len(i.Hostname) > maxHostname || hasNUL(i.Hostname):
		return fmt.Errorf("namespace: hostname %.100q: want at most %d bytes", i.Hostname, maxHostname)
	case i.Root == "" && len(i.Hostname) > 0:
		return errors.New("namespace: want ROOTFS[:HOSTNAME]")
	}
	return checkPath("namespace", i.Root)
}

func (k Keep) check() error {
	if k.Source == "" {
		return errors.New("namespace-keep-mount: want [SOURCE:]TARGET")
	}
	return errors.Join(checkPath("namespace-keep-mount", k.Source), checkPath("namespace-keep-mount", k.Target))
}

func (i *Isolation) checkKeeps() error {
	if len(i.Keep) > maxKeeps {
		return fmt.Errorf("%d mounts are kept; at most %d are allowed", len(i.Keep), maxKeeps)
	}
	if len(i.Keep) > 0 && i.Root == "" {
		return errors.New("namespace-keep-mount without namespace keeps nothing; write namespace = ROOTFS, or mount by hooks")
	}
	for _, k := range i.Keep {
		if err := k.check(); err != nil {
			return err
		}
	}
	return nil
}

func (i *Isolation) checkPivot() error {
	if i.PivotRoot == "" && i.PivotOld == "" {
		return nil
	}
	rel, err := filepath.Rel(i.PivotRoot, i.PivotOld)
	if err != nil || !filepath.IsLocal(rel) || i.PivotRoot == "" {
		return fmt.Errorf("pivot_root %.100q %.100q: the second, where the old root goes, is a folder below the first, the new one", i.PivotRoot, i.PivotOld)
	}
	return errors.Join(checkPath("pivot_root", i.PivotRoot), checkPath("pivot_root", i.PivotOld))
}

func (i *Isolation) checkServe() error {
	if n := len(unix.RawSockaddrUnix{}.Path); len(i.Serve) >= n {
		return fmt.Errorf("setns-socket %.100q: want a path of at most %d bytes", i.Serve, n-1)
	}
	return checkPath("setns-socket", i.Serve)
}

func (i *Isolation) checkCgroups() error {
	if len(i.Cgroups) > maxCgroups || len(i.CgroupOpts) > maxCgroups*maxCgroups {
		return fmt.Errorf("%d cgroups; at most %d are allowed", len(i.Cgroups), maxCgroups)
	}
	if len(i.CgroupOpts) > 0 && len(i.Cgroups) == 0 {
		return fmt.Errorf("cgroup-opt %.100q without cgroup; write cgroup = DIRECTORY", i.CgroupOpts[0])
	}
	if i.CgroupMode != nil && (*i.CgroupMode < 0 || *i.CgroupMode > maxMask) {
		return fmt.Errorf("cgroup-dir-mode %o: want 0 to %o", *i.CgroupMode, maxMask)
	}
	for _, dir := range i.Cgroups {
		if err := checkPath("cgroup", dir); err != nil {
			return err
		}
	}
	for _, opt := range i.CgroupOpts {
		if err := checkCgroupOpt(opt); err != nil {
			return err
		}
	}
	return nil
}

// Needs says what the ini asks for that cannot be without a namespace which is
// not among these: it would happen to the host, or to whoever is joined.
func (i *Isolation) Needs(namespaces uintptr) (ini.Pos, error) {
	if i.PivotRoot != "" && namespaces&unix.CLONE_NEWNS == 0 {
		return i.At["pivot_root"], errors.New("pivot_root in the host's own mounts would change the host's root; write unshare = fs too")
	}
	for option, path := range map[string]string{"namespace": i.Root, "pivot_root": i.PivotRoot} {
		if i.Setns != "" && path != "" {
			return i.At["setns"], fmt.Errorf("%s in the namespaces that setns joins would change the root of all who are there, maybe the host's; leave out %[1]s or setns", option)
		}
	}
	if i.Setns != "" && namespaces&unix.CLONE_NEWUSER != 0 {
		return i.At["setns"], errors.New("setns takes rights over the namespaces that are joined, which a user namespace has not; leave user out of " + strings.Join([]string{"emperor-use-clone", "unshare"}, " and "))
	}
	return ini.Pos{}, nil
}
