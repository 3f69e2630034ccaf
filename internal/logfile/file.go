package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Rules say when a log is rotated, and what is kept of it.
type Rules struct {
	MaxSize    int64         `json:"max_size,omitempty"`    // bytes of one file, at most; 0: no bound
	MaxAge     time.Duration `json:"max_age,omitempty"`     // of one file, when the next line comes; 0: no bound
	Backups    int           `json:"backups,omitempty"`     // that are kept; 0: all
	BackupName string        `json:"backup_name,omitempty"` // of the only backup, in the log's folder; empty: NAME.SECONDS
	Compress   bool          `json:"compress,omitempty"`    // backups, by gzip
}

// MinSize is the least MaxSize in bytes. A file that is longer than it less
// LongLine ends with the line, so that no line up to LongLine is torn.
const (
	MinSize  = 64 << 10
	LongLine = 8 << 10
)

// Rotates says whether the rules ever rotate a file.
func (r Rules) Rotates() bool { return r.MaxSize > 0 || r.MaxAge > 0 }

// Place is where a log is, and who may do what there.
type Place struct {
	Folder *os.File // any descriptor of it, O_PATH will do; the log's from Open on
	Name   string   // in the folder

	// As runs do with the rights that count for the folder's files. nil: our own.
	As func(do func() error) error

	// Inherit also opens a log with our own rights that root has left in a folder
	// of somebody whose rights As gives.
	Inherit bool
}

// File is a log that rotates. Its methods may wait for the disk: they are for a
// Queue's goroutine, aside from Reopen and Rotate.
type File struct {
	place Place
	rules Rules

	// Trouble is told what goes wrong beside Write, by any goroutine. Opened is
	// told each file that is opened, before the first line goes into it.
	Trouble func(error)
	Opened  func(*os.File)

	reopen, rotate atomic.Bool // somebody asked for it

	file    *os.File
	dev     uint64
	ino     uint64
	size    int64
	full    bool // the next line goes into the next file
	born    time.Time
	looked  time.Time // when the name was last looked at
	refused time.Time // when a rotation last failed
	failure error

	tidying sync.WaitGroup
	asked   atomic.Int32 // how often to compress backups, since the goroutine that does began a look; 0: there is none
	closed  chan struct{}
}

// lookInterval is the time between two looks whether somebody has moved the
// file, and between two attempts to rotate it.
const lookInterval = time.Second

// maxTurns is how many files are set aside for one piece: whoever has the folder
// may put a full one there each time.
const maxTurns = 3

// Open opens a log, which is made if there is none. With truncate what it had
// is gone. The folder is the File's from then on, even after an error.
func Open(p Place, r Rules, truncate bool) (*File, error) {
	if p.As == nil {
		p.As = func(do func() error) error { return do() }
	}
	f := &File{place: p, rules: r, closed: make(chan struct{})}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, p.Folder.Close())
	}
	if truncate {
		if err := f.file.Truncate(0); err != nil {
			return nil, errors.Join(err, f.file.Close(), p.Folder.Close())
		}
		f.measure(0)
	}
	return f, nil
}

// Folder is the file's, which stays the file's.
func (f *File) Folder() *os.File { return f.place.Folder }

func (f *File) folder() int { return int(f.place.Folder.Fd()) }

// open opens the file of the log's name in place of the one before.
func (f *File) open() error {
	const how = unix.O_WRONLY | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd := -1
	err := f.place.As(func() (err error) {
		fd, err = unix.Openat(f.folder(), f.place.Name, how|unix.O_CREAT, 0o640)
		return err
	})
	inherited := false
	if errors.Is(err, unix.EACCES) && f.place.Inherit {
		var ours error
		if fd, ours = unix.Openat(f.folder(), f.place.Name, how, 0); ours == nil {
			err, inherited = nil, true
		}
	}
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a log is no symbolic link; name the file itself", err)
	}
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), f.place.Name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(err, file.Close())
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.Join(errors.New("not a regular file"), file.Close())
	case inherited && (st.Uid != 0 || st.Nlink != 1):
		return errors.Join(fmt.Errorf("it belongs to uid %d and has %d names: %w", st.Uid, st.Nlink, unix.EACCES), file.Close())
	}
	if f.file != nil {
		_ = f.file.Close()
	}
	now := time.Now()
	f.file, f.dev, f.ino, f.born, f.looked = file, st.Dev, st.Ino, now, now
	if st.Size > 0 {
		f.born = birth(fd, &st)
	}
	f.measure(st.Size)
	if f.Opened != nil {
		f.Opened(file)
	}
	return nil
}

// measure takes the file for as long as it is: somebody else may have written to it.
func (f *File) measure(size int64) {
	f.size, f.full = size, f.rules.MaxSize > 0 && size > f.rules.MaxSize-LongLine
}

// birth is when the file was made, as far as its file system knows.
func birth(fd int, st *unix.Stat_t) time.Time {
	var x unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &x); err == nil && x.Mask&unix.STATX_BTIME != 0 {
		return time.Unix(x.Btime.Sec, int64(x.Btime.Nsec))
	}
	return time.Unix(st.Mtim.Unix())
}

// TellOpened tells Opened of the file that is open already.
func (f *File) TellOpened() { f.Opened(f.file) }

// Reopen makes the next Write open the log's name anew.
func (f *File) Reopen() { f.reopen.Store(true) }

// Rotate makes the next Write rotate the log first.
func (f *File) Rotate() { f.rotate.Store(true) }

// Write appends b, rotating as the rules say: between lines, where lines are
// no longer than LongLine. It writes nothing beyond what the rules allow.
func (f *File) Write(b []byte) (int, error) {
	if err := f.keepUp(); err != nil {
		return 0, err
	}
	written := 0
	for written < len(b) {
		for tries := 0; f.full; tries++ {
			if tries == maxTurns {
				return written, errors.New("there is always a full file of its name")
			}
			if err := f.turn(); err != nil {
				return written, err
			}
		}
		n, err := f.file.Write(f.fitting(b[written:]))
		written += n
		f.size += int64(n)
		if err != nil {
			return written, bare(err)
		}
	}
	return written, nil
}

// bare is what went wrong, without the name that everybody knows.
func bare(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}

// fitting is the part of b that belongs into this file; f.full says that the
// file ends with it.
func (f *File) fitting(b []byte) []byte {
	most := f.rules.MaxSize
	if most == 0 || f.size+int64(len(b)) <= most-LongLine {
		return b
	}
	from := max(0, most-LongLine-f.size-1) // a line end from here on is the file's
	to := min(int64(len(b)), most-f.size)
	if i := bytes.IndexByte(b[from:to], '\n'); i >= 0 {
		f.full = true
		return b[:from+int64(i)+1]
	}
	f.full = f.size+to == most
	return b[:to]
}

// keepUp does what was asked for, and follows the log's name: somebody else may
// have moved the file away, or cut it.
func (f *File) keepUp() error {
	now := time.Now()
	asked := f.reopen.Swap(false)
	if asked || now.Sub(f.looked) >= lookInterval {
		f.looked = now
		if asked || !f.there() {
			if err := f.open(); err != nil {
				f.reopen.Store(true) // once more with the next line
				return err
			}
		} else if st, err := f.file.Stat(); err == nil && st.Size() != f.size {
			f.measure(st.Size())
		}
	}
	if f.born.After(now) { // the clock was set back
		f.born = now
	}
	aged := f.rules.MaxAge > 0 && f.size > 0 && now.Sub(f.born) >= f.rules.MaxAge
	if f.rotate.Swap(false) && f.size > 0 || aged {
		return f.turn()
	}
	return nil
}

// there says whether the log's name still means the file.
func (f *File) there() bool {
	var st unix.Stat_t
	err := unix.Fstatat(f.folder(), f.place.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Dev == f.dev && st.Ino == f.ino
}

// turn rotates the log. What cannot be rotated does not grow either; it is
// tried again after a while.
func (f *File) turn() error {
	now := time.Now()
	if f.failure != nil && now.Sub(f.refused) < lookInterval {
		return f.failure
	}
	f.failure = nil
	err := f.setAside(now)
	// gofail: var logSetAside struct{}
	if err == nil {
		err = f.open()
	}
	if err != nil {
		f.failure, f.refused = fmt.Errorf("rotate: %w", bare(err)), now
		return f.failure
	}
	f.compressLater()
	return nil
}

// Tidy removes backups beyond what is kept, and compresses those that a
// process which ended has left.
func (f *File) Tidy() {
	if f.rules.BackupName == "" {
		if err := f.place.As(f.prune); err != nil {
			f.trouble(fmt.Errorf("remove backups: %w", err))
		}
	}
	f.compressLater()
}

func (f *File) trouble(err error) {
	if f.Trouble != nil {
		f.Trouble(err)
	}
}

// Close closes the log. Backups that are being compressed stay as they were.
func (f *File) Close() error {
	close(f.closed)
	f.tidying.Wait()
	return errors.Join(f.file.Close(), f.place.Folder.Close())
}
