package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// LandlockABI is what this kernel knows of Landlock; 0: nothing.
func LandlockABI() int { return landlockABI() }

var landlockABI = sync.OnceValue(func() int {
	abi, err := syscall.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
})

// The versions of Landlock that brought what is used here.
const (
	abiRefer    = 2
	abiTruncate = 3
	abiPorts    = 4
	abiDevices  = 5
	abiScopes   = 6
)

// Sets of rights over files.
const (
	mayRead  = syscall.AccessFSExecute | syscall.AccessFSReadFile | syscall.AccessFSReadDir
	mayWrite = syscall.AccessFSWriteFile | syscall.AccessFSTruncate
	mayMake  = syscall.AccessFSRemoveDir | syscall.AccessFSRemoveFile | syscall.AccessFSMakeChar | syscall.AccessFSMakeDir | syscall.AccessFSMakeReg |
		syscall.AccessFSMakeSock | syscall.AccessFSMakeFifo | syscall.AccessFSMakeBlock | syscall.AccessFSMakeSym | syscall.AccessFSRefer
	mayControl = syscall.AccessFSIoctlDev
	mayAll     = mayRead | mayWrite | mayMake | mayControl
	ofFiles    = syscall.AccessFSExecute | syscall.AccessFSReadFile | mayWrite | mayControl
)

// known are the rights that a version has.
func known(abi int) (rights uint64) {
	rights = mayAll
	for since, right := range map[int]uint64{
		abiRefer: syscall.AccessFSRefer, abiTruncate: syscall.AccessFSTruncate, abiDevices: syscall.AccessFSIoctlDev,
	} {
		if abi < since {
			rights &^= right
		}
	}
	return rights
}

// systemTrees are what programs consist of. /etc is read whole, without what
// lies hidden there: files in it are replaced by others of their name.
var systemTrees = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/sys", "/nix/store", "/gnu/store",
}

// ruleset is rules that are being made.
type ruleset struct {
	fd     int
	rights uint64 // that the kernel knows
	err    error  // the first
}

// allow adds a rule for what the app can reach at a path.
func (r *ruleset) allow(rights uint64, path string, whole bool) {
	f, file, ok := reach(path, whole)
	if !ok {
		return
	}
	defer f.Close()
	r.allowFile(rights, f, file)
}

func (r *ruleset) allowFile(rights uint64, f *os.File, file bool) {
	if file {
		rights &= ofFiles
	}
	attr := syscall.PathBeneathAttr{AllowedAccess: rights & r.rights, ParentFd: int(f.Fd())}
	if err := syscall.LandlockAddPathBeneathRule(r.fd, &attr, 0); err != nil && r.err == nil {
		r.err = fmt.Errorf("rule for %s: %w", f.Name(), err)
	}
}

// files makes the rules of the confinement and puts them in force for this thread
// and what it executes. What the kernel lacks is left out, unless the level is
// strict. A root that the ini brings is read whole.
func (k *Confined) files(ownRoot bool) error {
	abi := LandlockABI()
	switch {
	case abi < abiScopes && k.strict():
		return fmt.Errorf("this kernel has version %d of it, and strict wants %d (Linux 6.12)", abi, abiScopes)
	case abi == 0:
		return nil
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return fmt.Errorf("%w; make the folder proc in the root", err)
	}
	attr := syscall.RulesetAttr{HandledAccessFS: known(abi)}
	if k.Counted && abi >= abiPorts {
		attr.HandledAccessNet = syscall.AccessNetBindTCP
	}
	if k.Shared && abi >= abiScopes { // in a namespace of its own there are no others' sockets
		attr.Scoped = syscall.ScopeAbstractUnixSocket
	}
	fd, err := syscall.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("make rules: %w", err)
	}
	defer unix.Close(fd)
	r := &ruleset{fd: fd, rights: attr.HandledAccessFS}
	r.allowPlaces(k, ownRoot)
	if attr.HandledAccessNet != 0 {
		for _, port := range append(slices.Clone(k.Ports), 0) { // 0: one that the kernel chooses
			rule := syscall.NetPortAttr{AllowedAccess: syscall.AccessNetBindTCP, Port: uint64(port)}
			if err := syscall.LandlockAddNetPortRule(fd, &rule, 0); err != nil {
				return fmt.Errorf("rule for port %d: %w", port, err)
			}
		}
	}
	if r.err != nil {
		return r.err
	}
	return syscall.LandlockRestrictSelf(fd, 0)
}

// allowPlaces adds the rules about files.
func (r *ruleset) allowPlaces(k *Confined, ownRoot bool) {
	if root, err := openPlain("/"); ownRoot && err == nil {
		r.allowFile(mayRead, root, false)
		_ = root.Close()
	}
	for _, path := range systemTrees {
		if path == "/etc" && os.Geteuid() == 0 && !ownRoot {
			r.allowBut(path)
		} else {
			r.allow(mayRead, path, true)
		}
	}
	r.allow(mayRead|mayWrite, "/proc", true)
	r.allow(mayRead|mayWrite|mayControl, devices, true)
	for _, p := range privatePlaces {
		if p.path != devices {
			r.allow(mayAll, p.path, true)
		}
	}
	for _, path := range k.Writable {
		r.allow(mayAll, path, true)
	}
	for _, b := range k.Binds {
		if b.ReadOnly {
			r.allow(mayRead, b.Target, true)
		} else {
			r.allow(mayAll, b.Target, true)
		}
	}
	written, err := writtenMounts() // among them those that hooks have mounted
	if err != nil {
		r.err = err
	}
	for _, path := range written {
		r.allow(mayAll, path, true)
	}
	for _, path := range k.Reads {
		if !ownRoot && k.turns(path) {
			continue
		}
		r.allow(mayRead, path, true)
		r.allow(mayRead, path, false) // a program stands for its folder
		for _, folder := range append(turnFolders(path), venvOf(path)) {
			r.allow(mayRead, folder, true)
		}
	}
	for _, path := range k.Named {
		r.allow(mayRead, path, false)
	}
	for fd := range 3 { // what the app is given may be opened anew, by /dev/stdout
		r.allow(mayRead|mayWrite|mayControl, fmt.Sprintf("/proc/self/fd/%d", fd), true)
	}
}

// allowBut allows an app of uid 0 what everybody may read in a folder. A mask over
// a single file is gone when the host puts another in its place; a rule holds for
// the file that was there, and of one that comes later says nothing.
func (r *ruleset) allowBut(folder string) {
	alone, err := rootsAlone(folder)
	if err != nil && r.err == nil {
		r.err = err
	}
	// Masks over folders stay. A folder that was made after the app began has none.
	alone = slices.DeleteFunc(alone, func(path string) bool {
		var st, above unix.Stat_t
		err := errors.Join(unix.Lstat(path, &st), unix.Lstat(filepath.Dir(path), &above))
		return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev != above.Dev
	})
	var allow func(path string)
	allow = func(path string) {
		if !slices.ContainsFunc(alone, func(secret string) bool { return Under(secret, path) }) {
			r.allow(mayRead, path, true)
			return
		}
		if slices.Contains(alone, path) {
			return
		}
		entries, err := os.ReadDir(path)
		if err != nil && r.err == nil {
			r.err = err
		}
		for _, e := range entries {
			at := filepath.Join(path, e.Name())
			switch {
			case e.IsDir():
				allow(at)
			case e.Type().IsRegular():
				r.allowPublic(at)
			}
		}
		r.allow(syscall.AccessFSReadDir, path, true)
	}
	allow(folder)
}

// allowPublic allows a file that everybody may read, as it is when it is opened: the
// host may just put a secret in its place.
func (r *ruleset) allowPublic(path string) {
	const read = 0o004
	f, err := openPlain(path)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&read != 0 {
		r.allowFile(mayRead, f, true)
	}
}

// writtenMounts are the places of mounts that can be written, but for those whose
// rights follow from what they are.
func writtenMounts() (paths []string, err error) {
	mounts, err := mountinfo.GetMounts(nil)
	for _, m := range mounts {
		if !slices.Contains(strings.Split(m.Options, ","), "ro") && !Under(m.Mountpoint, devices) && !Under(m.Mountpoint, "/proc") {
			paths = append(paths, m.Mountpoint)
		}
	}
	return paths, err
}

// reach opens what the app can reach at a path, and says whether it is a file.
// A file that is only named stands for its folder, and a folder of many, or the
// root, for nothing: that is too much to have been meant.
func reach(path string, whole bool) (f *os.File, file, ok bool) {
	var st unix.Stat_t
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, false
	}
	f = os.NewFile(uintptr(fd), path)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil || real == "/" || !filepath.IsAbs(real) { // pipe:[1234]
		_ = f.Close()
		return nil, false, false
	}
	file = st.Mode&unix.S_IFMT != unix.S_IFDIR
	folder := filepath.Dir(real)
	switch {
	case whole:
		return f, file, true
	case file && !shared(folder):
		if dir, _, ok := reach(folder, true); ok {
			_ = f.Close()
			return dir, false, true
		}
	case !file && shared(real):
		_ = f.Close()
		return nil, false, false
	}
	return f, file, true
}
