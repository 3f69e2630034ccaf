package vassal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// action does what a hook says. Its output goes to out.
type action func(ctx context.Context, args string, out io.Writer) error

// actions are uWSGI's, by their names there. Filled by init because "exec"
// and friends refer back to the table's users.
var actions = map[string]action{
	"exec":            runShell,
	"safeexec":        func(ctx context.Context, a string, out io.Writer) error { _ = runShell(ctx, a, out); return nil },
	"mount":           func(_ context.Context, a string, _ io.Writer) error { return mountAction(a) },
	"umount":          func(_ context.Context, a string, _ io.Writer) error { return umountAction(a) },
	"cd":              whole(os.Chdir),
	"chdir":           whole(os.Chdir),
	"mkdir":           whole(func(dir string) error { return os.Mkdir(dir, 0o777) }),
	"unlink":          whole(unix.Unlink),
	"create":          whole(createFile),
	"creat":           whole(createFile),
	"hostname":        whole(func(name string) error { return unix.Sethostname([]byte(name)) }),
	"putenv":          whole(putenv),
	"exit":            whole(exit),
	"chmod":           simple(2, chmod),
	"sticky":          whole(sticky),
	"chown":           simple(3, chownNames),
	"chown2":          simple(3, chownNumbers),
	"write":           writer(os.O_TRUNC|os.O_CREATE, ""),
	"writen":          writer(os.O_TRUNC|os.O_CREATE, "\n"),
	"append":          writer(os.O_APPEND|os.O_CREATE, ""),
	"appendn":         writer(os.O_APPEND|os.O_CREATE, "\n"),
	"writefifo":       fifoWriter(false),
	"spinningfifo":    fifoWriter(true),
	"print":           func(_ context.Context, a string, out io.Writer) error { _, err := fmt.Fprintln(out, a); return err },
	"log":             func(_ context.Context, a string, out io.Writer) error { _, err := fmt.Fprintln(out, a); return err },
	"wait_for_fs":     func(ctx context.Context, a string, _ io.Writer) error { return waitFor(ctx, a, 0) },
	"wait_for_file":   func(ctx context.Context, a string, _ io.Writer) error { return waitFor(ctx, a, unix.S_IFREG) },
	"wait_for_dir":    func(ctx context.Context, a string, _ io.Writer) error { return waitFor(ctx, a, unix.S_IFDIR) },
	"wait_for_socket": func(ctx context.Context, a string, _ io.Writer) error { return waitFor(ctx, a, unix.S_IFSOCK) },
}

func actionNames() []string { return slices.Sorted(maps.Keys(actions)) }

// RunHooks runs hooks in their order and stops at the first that fails.
func RunHooks(ctx context.Context, hooks []Hook, out io.Writer) error {
	for _, h := range hooks {
		if err := h.checkAction(); err != nil {
			return fmt.Errorf("%s: %w", h.Pos, err)
		}
		if err := actions[h.Action](ctx, h.Args, out); err != nil {
			return fmt.Errorf("%s: hook %s %q: %w", h.Pos, h.Phase, h, err)
		}
	}
	return nil
}

// runShell runs a command as uWSGI does, by "sh -c". A command that a signal
// ended has failed. Its last words become the error's.
func runShell(ctx context.Context, command string, out io.Writer) error {
	var last tail
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	null, err := os.Open(os.DevNull)
	if err != nil {
		null = os.Stdin // a root of the ini's own without /dev; the init stage's is /dev/null of before
	} else {
		defer null.Close()
	}
	cmd.Stdin = null
	cmd.Stdout = io.MultiWriter(out, &last)
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it left a child behind that holds the output open
	}
	if words := last.String(); err != nil && words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// tail keeps the last line that was written to it.
type tail struct{ line []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.line = append(t.line, b...)
	if trimmed := bytes.TrimRight(t.line, "\n"); len(trimmed) > 0 {
		if i := bytes.LastIndexByte(trimmed, '\n'); i >= 0 {
			t.line = append([]byte(nil), t.line[i+1:]...)
		}
	}
	if len(t.line) > 400 {
		t.line = t.line[len(t.line)-400:]
	}
	return len(b), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.line)) }

// simple is an action of n words separated by blanks.
func simple(n int, do func(words []string) error) action {
	return func(_ context.Context, args string, _ io.Writer) error {
		words := strings.Fields(args)
		if len(words) < n {
			return fmt.Errorf("want %d words, got %q", n, args)
		}
		return do(words)
	}
}

// whole is an action with one argument, which may have blanks in it.
func whole(do func(arg string) error) action {
	return func(_ context.Context, args string, _ io.Writer) error {
		if args == "" {
			return errors.New("want an argument after the colon")
		}
		return do(args)
	}
}

func createFile(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	return f.Close()
}

func putenv(arg string) error {
	name, value, ok := strings.Cut(arg, "=")
	if !ok {
		return os.Unsetenv(name) // putenv(3)
	}
	return os.Setenv(name, value)
}

// exit ends the vassal before its app begins.
func exit(code string) error {
	return fmt.Errorf("the ini ends the vassal here, with exit code %s", code)
}

// sticky keeps the file's other bits.
func sticky(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	return unix.Chmod(name, st.Mode&0o7777|unix.S_ISVTX)
}

func chmod(w []string) error {
	mode, err := strconv.ParseUint(w[1], 8, 12)
	if err != nil {
		return fmt.Errorf("mode %q: want octal digits", w[1])
	}
	return unix.Chmod(w[0], uint32(mode))
}

func chownNames(w []string) error {
	u, err := user.Lookup(w[1])
	if err != nil {
		return err
	}
	g, err := user.LookupGroup(w[2])
	if err != nil {
		return err
	}
	return chownNumbers([]string{w[0], u.Uid, g.Gid})
}

func chownNumbers(w []string) error {
	uid, err := strconv.Atoi(w[1])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(w[2])
	if err != nil {
		return err
	}
	return os.Chown(w[0], uid, gid)
}

// writer is an action "FILE TEXT".
func writer(flags int, end string) action {
	return func(_ context.Context, args string, _ io.Writer) error {
		name, text, ok := strings.Cut(args, " ")
		if emptyLine := end != "" && flags&os.O_APPEND != 0; !ok && !emptyLine || name == "" {
			return fmt.Errorf("want FILE TEXT, got %q", args)
		}
		f, err := os.OpenFile(name, os.O_WRONLY|flags, 0o666)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text + end)
		return errors.Join(err, f.Close())
	}
}

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rec": unix.MS_REC, "recursive": unix.MS_REC, "private": unix.MS_PRIVATE,
	"shared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "ro": unix.MS_RDONLY, "readonly": unix.MS_RDONLY, "rdonly": unix.MS_RDONLY,
	"remount": unix.MS_REMOUNT, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noatime": unix.MS_NOATIME, "move": unix.MS_MOVE, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
	"mandlock": unix.MS_MANDLOCK, "defaults": 0,
}

var umountFlags = map[string]int{"detach": unix.MNT_DETACH, "force": unix.MNT_FORCE, "expire": unix.MNT_EXPIRE}

// mountAction is "TYPE SOURCE TARGET [FLAGS [DATA]]".
func mountAction(args string) error {
	w := strings.Fields(args)
	if len(w) < 3 {
		return fmt.Errorf("want TYPE SOURCE TARGET [FLAGS [DATA]], got %q", args)
	}
	flags, data, err := mountWords(w[3:])
	if err != nil {
		return err
	}
	err = unix.Mount(w[1], w[2], w[0], flags, data)
	if err == nil && flags&unix.MS_BIND != 0 && flags&^(unix.MS_BIND|unix.MS_REC) != 0 && flags&unix.MS_REMOUNT == 0 {
		// The kernel ignores all other flags of a bind; they need a remount (mount(2)).
		err = unix.Mount("", w[2], "", flags&^unix.MS_REC|unix.MS_REMOUNT, data)
	}
	return err
}

// mountWords are the flags, and what the file system itself is told: the words
// after the first, and of the first what has a value (hidepid=2).
func mountWords(words []string) (flags uintptr, data string, err error) {
	var own []string
	if len(words) > 0 {
		for name := range strings.SplitSeq(words[0], ",") {
			f, ok := mountFlags[name]
			switch {
			case ok:
				flags |= f
			case strings.Contains(name, "="):
				own = append(own, name)
			default:
				return 0, "", fmt.Errorf("unknown mount flag %q; want some of %s, or NAME=VALUE", name, strings.Join(slices.Sorted(maps.Keys(mountFlags)), " "))
			}
		}
		own = append(own, words[1:]...)
	}
	return flags, strings.Join(own, ","), nil
}

// umountAction is "TARGET [FLAGS]"; with the flag rec all mounts below go first,
// which takes a /proc to find them.
func umountAction(args string) error {
	w := strings.Fields(args)
	if len(w) < 1 {
		return errors.New("want TARGET [FLAGS]")
	}
	flags, below := 0, false
	if len(w) > 1 {
		for name := range strings.SplitSeq(w[1], ",") {
			if name == "rec" || name == "recursive" {
				below = true
				continue
			}
			f, ok := umountFlags[name]
			if !ok {
				return fmt.Errorf("unknown umount flag %q", name)
			}
			flags |= f
		}
	}
	if !below || flags&unix.MNT_DETACH != 0 { // a mount takes along what lies on it when it is detached
		return unix.Unmount(w[0], flags)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(w[0]))
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, flags); err != nil {
			return fmt.Errorf("%s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// waitFor waits up to 30 s, as uWSGI does, for a file of a type (0: any).
func waitFor(ctx context.Context, path string, kind uint32) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err == nil && (kind == 0 || st.Mode&unix.S_IFMT == kind) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not appear within 30s", path)
		}
	}
}
