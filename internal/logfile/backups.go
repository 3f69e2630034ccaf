package logfile

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	zipped = ".gz"
	half   = ".gz.tmp" // a backup that is being compressed
)

// backup is one name of a rotated file: NAME.SECONDS, and .N behind it where
// there were several in that second.
type backup struct {
	name    string
	seconds int64
	n       int
	zipped  bool
}

// parseBackup reads a name of the folder; ok says whether it is a backup of log.
func parseBackup(log, name string) (b backup, ok bool) {
	rest, ok := strings.CutPrefix(name, log+".")
	if !ok {
		return b, false
	}
	b.name = name
	rest, b.zipped = strings.CutSuffix(rest, zipped)
	seconds, n, several := strings.Cut(rest, ".")
	if several {
		var err error
		if b.n, err = strconv.Atoi(n); err != nil || b.n < 1 || strconv.Itoa(b.n) != n {
			return b, false
		}
	}
	var err error
	b.seconds, err = strconv.ParseInt(seconds, 10, 64)
	const first = 1e9 // a plain number is another program's: logrotate's NAME.1
	return b, err == nil && b.seconds >= first && strconv.FormatInt(b.seconds, 10) == seconds
}

// setAside gives the file the name of a backup, and removes the oldest. A name
// that is no longer the file's is left alone.
func (f *File) setAside(now time.Time) error {
	if !f.there() {
		return nil
	}
	return f.place.As(func() error {
		if to := f.rules.BackupName; to != "" {
			return unix.Renameat(f.folder(), f.place.Name, f.folder(), to)
		}
		name, err := f.freeName(now)
		if err == nil {
			err = unix.Renameat2(f.folder(), f.place.Name, f.folder(), name, unix.RENAME_NOREPLACE)
		}
		if errors.Is(err, unix.EINVAL) { // a file system without RENAME_NOREPLACE
			err = unix.Renameat(f.folder(), f.place.Name, f.folder(), name)
		}
		if err != nil {
			return err
		}
		return f.prune()
	})
}

// freeName is the name of the next backup: behind all others.
func (f *File) freeName(now time.Time) (string, error) {
	all, err := f.backups()
	if err != nil {
		return "", err
	}
	name := f.place.Name + "." + strconv.FormatInt(now.Unix(), 10)
	for _, b := range all {
		if b.seconds >= now.Unix() { // also after the clock was set back: the order stays
			name = fmt.Sprintf("%s.%d.%d", f.place.Name, b.seconds, b.n+1)
		}
	}
	return name, nil
}

// maxNames bounds how much of a folder is read; the log of somebody who has
// more beside it is not rotated.
const maxNames = 100_000

// names are all that is in the folder.
func (f *File) names() ([]string, error) {
	fd, err := unix.Openat(f.folder(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	dir := os.NewFile(uintptr(fd), "folder")
	defer dir.Close()
	var own []string
	for seen := 0; ; {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, f.place.Name+".") {
				own = append(own, name)
			}
		}
		if seen += len(names); seen > maxNames {
			return nil, fmt.Errorf("more than %d files are in the folder", maxNames)
		}
		if errors.Is(err, io.EOF) {
			return own, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// backups are all backups, the oldest first.
func (f *File) backups() ([]backup, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	var all []backup
	for _, name := range names {
		if b, ok := parseBackup(f.place.Name, name); ok {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b backup) int { return cmp.Or(cmp.Compare(a.seconds, b.seconds), cmp.Compare(a.n, b.n)) })
	return all, nil
}

// prune removes the oldest backups, beyond those that are kept.
func (f *File) prune() error {
	if f.rules.Backups == 0 {
		return nil
	}
	all, err := f.backups()
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range all[:max(0, len(all)-f.rules.Backups)] {
		if err := unix.Unlinkat(f.folder(), b.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove %s: %w", b.name, err))
		}
	}
	return errors.Join(errs...)
}

// compressLater compresses what is to be, beside the writing.
func (f *File) compressLater() {
	if !f.rules.Compress || f.asked.Add(1) > 1 {
		return // who compresses sees that it was asked for again
	}
	f.tidying.Go(func() { // Close waits for it
		runtime.LockOSThread() // and never unlocked: its niceness ends with it
		for {
			asked := f.asked.Load()
			err := f.place.As(func() error { // perhaps by another thread, which ends too
				const low = 19
				_ = unix.Setpriority(unix.PRIO_PROCESS, 0, low)
				return f.compressAll()
			})
			if err != nil && !errors.Is(err, os.ErrClosed) {
				f.trouble(fmt.Errorf("compress: %w", err))
			}
			if f.asked.Add(-asked) == 0 {
				return
			}
		}
	})
}

// compressAll compresses backups until there are none to compress.
func (f *File) compressAll() error {
	for failed := map[string]error{}; ; {
		names, err := f.names()
		if err != nil {
			return err
		}
		todo := ""
		for _, name := range names {
			b, ok := parseBackup(f.place.Name, name)
			switch {
			case strings.HasSuffix(name, half): // of a process that was killed: there is one of us
				if _, ok := parseBackup(f.place.Name, strings.TrimSuffix(name, half)); ok {
					_ = unix.Unlinkat(f.folder(), name, 0)
				}
			case failed[name] != nil:
			case ok && !b.zipped && f.rules.BackupName == "", name == f.rules.BackupName:
				todo = name
			}
		}
		if todo == "" {
			for _, err := range failed {
				return err
			}
			return nil
		}
		err = f.compress(todo)
		if errors.Is(err, os.ErrClosed) {
			return err
		}
		if err != nil {
			failed[todo] = fmt.Errorf("%s: %w", todo, bare(err))
		}
	}
}

// compress makes NAME.gz of NAME. Whatever goes wrong, one of them is whole.
func (f *File) compress(name string) error {
	const safely = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(f.folder(), name, unix.O_RDONLY|safely, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was the oldest
	}
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	st, err := from.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, errors.New("not a regular file"))
	}
	fd, err = unix.Openat(f.folder(), name+half, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|safely, 0o640)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), name+half)
	z := gzip.NewWriter(to)
	z.ModTime = st.ModTime()
	_, err = io.Copy(z, &interruptible{from, f.closed})
	if err = errors.Join(err, z.Close(), to.Sync(), to.Close()); err == nil {
		err = unix.Renameat(f.folder(), name+half, f.folder(), name+zipped)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(f.folder(), name+half, 0))
	}
	if err := unix.Unlinkat(f.folder(), name, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	// It was pruned meanwhile, as the oldest: so is what became of it.
	return unix.Unlinkat(f.folder(), name+zipped, 0)
}

// interruptible is a reader that ends with an error once closed is.
type interruptible struct {
	from   io.Reader
	closed chan struct{}
}

func (r *interruptible) Read(b []byte) (int, error) {
	select {
	case <-r.closed:
		return 0, os.ErrClosed
	default:
		return r.from.Read(b)
	}
}
