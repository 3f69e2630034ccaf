package logfile

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads a log and its backups, with the rights by which it is written,
// and never through a link.
type Reader struct {
	place  Place // with a folder of its own
	backup string
}

// Reader reads beside who writes. It is the caller's to close. The File must not
// be closed meanwhile; it may afterwards.
func (f *File) Reader() (*Reader, error) {
	fd, err := unix.FcntlInt(uintptr(f.folder()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("the log's folder: %w", err)
	}
	r := &Reader{place: f.place, backup: f.rules.BackupName}
	r.place.Folder = os.NewFile(uintptr(fd), "folder")
	return r, nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.place.Folder.Close() }

// Part is one file of a log.
type Part struct {
	Name  string
	Until time.Time // when the last of it was written
}

// Parts are the files that have the log, the oldest first and the log itself last.
func (r *Reader) Parts() (parts []Part, err error) {
	f := File{place: r.place}
	all, err := f.backups()
	if err != nil {
		return nil, err
	}
	for i, b := range all {
		if b.zipped && i > 0 && strings.TrimSuffix(b.name, zipped) == all[i-1].name || !b.zipped && i > 0 && all[i-1].name == b.name+zipped {
			continue // it is being compressed: both are whole
		}
		parts = append(parts, Part{b.name, time.Unix(b.seconds, 0)})
	}
	for _, name := range []string{r.backup, r.backup + zipped} {
		var st unix.Stat_t
		if r.backup != "" && unix.Fstatat(f.folder(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			parts = append(parts, Part{name, time.Unix(st.Mtim.Unix())})
		}
	}
	slices.SortStableFunc(parts, func(a, b Part) int { return cmp.Compare(a.Until.Unix(), b.Until.Unix()) })
	return append(parts, Part{r.place.Name, time.Now()}), nil
}

// ErrTooLong says that a compressed file has more in it than is read of one.
var ErrTooLong = errors.New("it has more in it than is read of a compressed file")

// maxUnzipped bounds what is read of one compressed file: who writes into the
// folder may have put a small one there that never ends.
const maxUnzipped = 256 << 20

// Open opens one of the parts.
func (r *Reader) Open(p Part) (io.ReadCloser, error) {
	const safely = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd := -1
	err := r.place.As(func() (err error) {
		fd, err = unix.Openat(int(r.place.Folder.Fd()), p.Name, safely, 0)
		return err
	})
	if errors.Is(err, unix.ENOENT) && p.Name != r.place.Name && !strings.HasSuffix(p.Name, zipped) {
		p.Name += zipped // it was compressed meanwhile
		return r.Open(p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	file := os.NewFile(uintptr(fd), p.Name)
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && !strings.HasSuffix(p.Name, zipped) {
		return file, nil
	}
	var z *gzip.Reader
	if err == nil {
		z, err = gzip.NewReader(file)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.Name, err), file.Close())
	}
	return &unzipped{z, file, maxUnzipped}, nil
}

// unzipped is what a compressed file has in it.
type unzipped struct {
	z    *gzip.Reader
	file *os.File
	left int64
}

func (u *unzipped) Read(b []byte) (int, error) {
	if u.left <= 0 {
		return 0, ErrTooLong
	}
	n, err := u.z.Read(b[:min(int64(len(b)), u.left)])
	u.left -= int64(n)
	return n, err
}

func (u *unzipped) Close() error { return errors.Join(u.z.Close(), u.file.Close()) }
