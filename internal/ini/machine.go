package ini

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What reading one source may cost.
const (
	maxFile  = 1 << 20
	execTime = 10 * time.Second // of all commands of one load together
)

// useMachine fills what the caller left out with the real machine.
func (o *Options) useMachine() {
	if o.ReadFile == nil {
		o.ReadFile = func(name string) ([]byte, error) { return ReadFile(name, nil) }
	}
	if o.Binary == "" {
		o.Binary, _ = os.Executable()
	}
	if o.Exec == nil {
		stdin, _ := o.Stdin.(*os.File)
		o.Exec = shell(o.Dir, stdin, execTime)
	}
	if o.Stat == nil {
		o.Stat = os.Stat
	}
	if o.Readable == nil {
		o.Readable = func(name string) bool { return unix.Access(name, unix.R_OK) == nil }
	}
	if o.Glob == nil {
		o.Glob = glob
	}
	if o.Abs == nil {
		o.Abs = absolute
	}
	if o.Inode == nil {
		o.Inode = inode
	}
}

// path is a name of the file where the machine finds it.
func (o *Options) path(name string) string {
	if o.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	return o.Dir + "/" + name
}

// ReadFile reads a regular file of at most 1 MiB. Nothing else: opening a fifo
// or a device may block, or give data without end. check, unless nil, may
// refuse the very file that was opened.
func ReadFile(name string, check func(*unix.Stat_t) error) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a regular file (%s)", info.Mode().Type())
	}
	if check != nil {
		var st unix.Stat_t
		err := unix.Fstat(int(f.Fd()), &st)
		if err == nil {
			err = check(&st)
		}
		if err != nil {
			return nil, err
		}
	}
	return readWhole(f)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return data, err
}

// shell returns a function that runs commands by sh -c, all of them together
// for the time given; the one that takes too long is ended with its process
// group. What a failing command wrote is returned beside the error. stdin is
// the commands' too; nil: they have none.
func shell(dir string, stdin *os.File, limit time.Duration) func(string) ([]byte, error) {
	deadline := sync.OnceValue(func() time.Time { return time.Now().Add(limit) })
	return func(command string) ([]byte, error) {
		return capture(dir, deadline(), limit, func(cmd *exec.Cmd) {
			if stdin != nil {
				cmd.Stdin = stdin
			}
		}, "sh", "-c", command)
	}
}

// Execute runs the program that f is, in dir, and returns what it writes: up to
// 1 MiB within 10 s. It is that very file, whatever its name means by now.
func Execute(f *os.File, dir string) ([]byte, error) {
	return capture(dir, time.Now().Add(execTime), execTime, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f} }, "/proc/self/fd/3")
}

// capture runs a command with files of give's to its end, or ends it with its
// process group.
func capture(dir string, deadline time.Time, limit time.Duration, give func(*exec.Cmd), name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	out := &bounded{cancel: cancel}
	cmd := exec.CommandContext(ctx, name, args...)
	give(cmd)
	cmd.Dir = dir
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // a daemonised child that keeps our pipe
	err := cmd.Run()
	switch {
	case out.full:
		err = errOutput
	case ctx.Err() != nil:
		err = fmt.Errorf("it takes longer than %v", limit)
	}
	return out.buf.Bytes(), err
}

var errOutput = fmt.Errorf("it writes more than %d bytes", maxFile)

// bounded keeps the first bytes of a command and ends it when there are more.
type bounded struct {
	buf    bytes.Buffer
	full   bool
	cancel func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxFile {
		b.full = true
		b.cancel()
		return 0, io.ErrShortWrite
	}
	return b.buf.Write(p)
}

// absolute is realpath(3), but a symlink itself is not followed: %d of a
// symlinked vassal is where the link is.
func absolute(name string) (string, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return "", err
		}
		return filepath.Abs(name)
	}
	if filepath.IsAbs(name) {
		return name, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return wd + "/" + name, nil
}

// inode of a file, or of the symlink itself, or "" if there is none.
func inode(name string) string {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return ""
	}
	return strconv.FormatUint(st.Ino, 10)
}

// glob is glob(3) with GLOB_MARK: directories end in a slash, the result is
// sorted, and a wildcard does not match a dot at the start of a name.
func glob(pattern string) []string {
	matches, err := filepath.Glob(strings.ReplaceAll(pattern, "[!", "[^"))
	if err != nil {
		return nil // a pattern that is none matches nothing, as in C
	}
	matches = slices.DeleteFunc(matches, func(m string) bool { return hidden(pattern, m) })
	for i, m := range matches {
		if info, err := os.Stat(m); err == nil && info.IsDir() {
			matches[i] += "/"
		}
	}
	slices.Sort(matches)
	return matches
}

// hidden says whether a component of the match starts with a dot that the
// pattern does not spell out.
func hidden(pattern, match string) bool {
	want := strings.Split(filepath.Clean(pattern), "/")
	got := strings.Split(filepath.Clean(match), "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if strings.HasPrefix(got[i], ".") && !strings.HasPrefix(want[i], ".") {
			return true
		}
	}
	return false
}

// isExit says whether a command ran and failed, which is its own business.
func isExit(err error) bool {
	_, ok := errors.AsType[*exec.ExitError](err)
	return ok
}
