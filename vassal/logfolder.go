package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// logFolder opens the folder of the log. With an owner's rights the kernel says
// where he may go; root looks at each step himself.
func (plan *Plan) logFolder() (*os.File, error) {
	dir := filepath.Dir(plan.LogTo)
	if plan.LogUID > 0 {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), dir), nil
	}
	return openTrusted(dir)
}

// maxLinks is how many links a path may have, as in path_resolution(7).
const maxLinks = 40

// openTrusted opens a directory by an absolute path whose symbolic links only
// root can have made: a link in somebody's folder could lead root anywhere.
func openTrusted(path string) (_ *os.File, err error) {
	at := -1
	defer func() {
		if err != nil && at >= 0 {
			err = errors.Join(err, unix.Close(at))
		}
	}()
	const how = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if at, err = unix.Open("/", how, 0); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	rooted, links := true, 0 // nobody but root has a folder on the way
	for todo := steps(path); len(todo) > 0; {
		step := todo[0]
		todo = todo[1:]
		next, err := unix.Openat(at, step, how, 0)
		if err != nil {
			return nil, err
		}
		if err := unix.Fstat(next, &st); err != nil {
			return nil, errors.Join(err, unix.Close(next))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			_ = unix.Close(at)
			at, rooted = next, rooted && st.Uid == 0
			continue
		}
		target := make([]byte, maxPath)
		n, err := unix.Readlinkat(next, "", target)
		if err = errors.Join(err, unix.Close(next)); err != nil {
			return nil, err
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if !rooted || st.Uid != 0 {
			return nil, fmt.Errorf("%q is a symbolic link that is not only root's; name its target", step)
		}
		if n > 0 && target[0] == '/' {
			_ = unix.Close(at)
			if at, err = unix.Open("/", how, 0); err != nil {
				return nil, err
			}
		}
		todo = append(steps(string(target[:n])), todo...)
	}
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	return os.NewFile(uintptr(at), path), nil
}

func steps(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}
