package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// scratchSize bounds what the vassal's own folders hold together: it is memory,
// and counts for limit-memory.
const scratchSize = "25%"

// Names in scratch.
const (
	nothingFolder = "nothing"
	nothingFile   = "nothing-file"
)

// makeScratch makes the file system of the vassal's own folders. To copy parts
// of it, it has to be mounted somewhere meanwhile.
func (c *cage) makeScratch() error {
	return c.asMapped(func() error {
		fd, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, [2]string{"size", scratchSize}, [2]string{"mode", "0755"})
		if err != nil {
			return err
		}
		c.scratch = c.own(fd, "scratch")
		for _, p := range []string{"/tmp", "/run", "/dev"} {
			if at, err := filepath.EvalSymlinks(p); err == nil {
				c.base = at
				break
			}
		}
		if c.base == "" {
			return errors.New("the root has no folder tmp, run or dev; make them")
		}
		if err := put(c.scratch, c.base); err != nil {
			return fmt.Errorf("mount %s: %w", c.base, err)
		}
		if err := unix.Mkdirat(fd, nothingFolder, 0); err != nil {
			return err
		}
		return makeFile(fd, nothingFile, 0)
	})
}

// asMapped runs fn with files made by somebody whom the vassal's user namespace
// knows: if it knows only the owner, root's files could not be.
func (c *cage) asMapped(fn func() error) error {
	if !c.plan.OwnIDs {
		return fn()
	}
	if err := seeFilesAs(c.plan.UID, c.plan.GID); err != nil {
		return err
	}
	return errors.Join(fn(), c.seeFilesAgain())
}

// newMount makes a file system that is mounted nowhere yet.
func newMount(kind string, attributes int, options ...[2]string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", kind, err)
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if err := unix.FsconfigSetString(ctx, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("%s with %s=%s: %w", kind, o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("%s: %w", kind, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", kind, err)
	}
	return fd, nil
}

func makeFile(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	return unix.Close(fd)
}

// furnish makes the folders in scratch, with what lies below them, and copies
// their mounts.
func (c *cage) furnish() error {
	mask := unix.Umask(0)
	defer unix.Umask(mask)
	return c.asMapped(func() error {
		for _, it := range c.items {
			if err := c.furnishOne(it); err != nil {
				return fmt.Errorf("make %s: %w", it.path, err)
			}
		}
		return nil
	})
}

func (c *cage) furnishOne(it *item) error {
	switch {
	case it.kind == symlink:
		return c.makeLink(it)
	case it.above != nil && it.above.name != "": // it lies in a folder of ours
		if err := c.skeleton(it.above, it); err != nil {
			return err
		}
	}
	if it.tree != nil {
		return nil
	}
	name, attributes := it.name, uint64(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	var st unix.Stat_t
	switch it.kind {
	case private:
		mode := uint32(0o1777)
		for _, p := range privatePlaces {
			if p.path == it.path {
				mode = p.mode
			}
		}
		if err := unix.Mkdirat(int(c.scratch.Fd()), name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if u := c.plan.Users; u != nil && it.path != devices { // the namespace's root's, as the host's are its root's
			if err := unix.Fchownat(int(c.scratch.Fd()), name, u.First, u.First, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		switch {
		case it.path == devices:
			attributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY
			if err := c.linkDevices(name); err != nil {
				return err
			}
		case c.strict():
			attributes |= unix.MOUNT_ATTR_NOEXEC
		}
	case hidden, shut:
		attributes |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC
		if !it.veil && it.kind != shut { // one that is shut may not be root's to look at (FUSE)
			if err := unix.Stat(it.path, &st); it.kind == hidden && errors.Is(err, unix.ENOENT) {
				return nil // the host has just removed it
			} else if err != nil {
				return err
			}
			it.file = st.Mode&unix.S_IFMT != unix.S_IFDIR
		}
		if it.file {
			name = nothingFile
		} else if !it.holds {
			name, it.name = nothingFolder, ""
		} else if err := unix.Mkdirat(int(c.scratch.Fd()), name, 0o711); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	tree, err := c.copyOf(name)
	if err != nil {
		return err
	}
	it.tree = tree
	return narrow(tree, attributes)
}

// copyOf copies the mount of something in scratch.
func (c *cage) copyOf(name string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(c.base, name), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", name, err)
	}
	return c.own(fd, name), nil
}

// skeleton makes the folders down to an item, and something that it can lie on.
func (c *cage) skeleton(above, it *item) error {
	rel, err := filepath.Rel(above.path, it.path)
	if err != nil {
		return err
	}
	at := above.name
	words := strings.Split(rel, "/")
	for i, word := range words {
		at = filepath.Join(at, word)
		if it.file && i == len(words)-1 {
			err = makeFile(int(c.scratch.Fd()), at, 0o444)
		} else {
			err = unix.Mkdirat(int(c.scratch.Fd()), at, 0o755)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// devices is where programs look for them.
const devices = "/dev"

// nodes are the devices that every program may have, with their numbers.
var nodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// openNodes takes the usual devices from the host's, and makes terminals that
// are the vassal's own.
func (c *cage) openNodes() error {
	if _, err := os.Stat(devices); err != nil {
		return nil // a root without: there is nothing to be replaced
	}
	for _, n := range nodes {
		path := filepath.Join(devices, n.name)
		tree, _, err := c.host(path, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(n.major, n.minor) {
			return fmt.Errorf("%s is not the device that it should be", path)
		}
		if err := narrow(tree, unix.MOUNT_ATTR_NOEXEC); err != nil {
			return err
		}
		c.add(&item{path: path, kind: given, tree: tree, file: true})
	}
	options := [][2]string{{"ptmxmode", "0666"}, {"mode", "0620"}}
	terminals := 5 // the group tty of every distribution
	if c.plan.Users != nil {
		terminals += c.plan.Users.First
	}
	if !c.plan.OwnIDs {
		options = append(options, [2]string{"gid", strconv.Itoa(terminals)})
	}
	fd, err := newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
	if err != nil {
		return err
	}
	c.add(&item{path: devices + "/pts", kind: given, tree: c.own(fd, "devpts")})
	return nil
}

// linkDevices makes the names that programs know.
func (c *cage) linkDevices(folder string) error {
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := unix.Symlinkat(target, int(c.scratch.Fd()), folder+"/"+name); err != nil {
			return err
		}
	}
	return nil
}
