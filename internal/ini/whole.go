package ini

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a file that somebody writes is waited for.
const (
	writeWait  = 300 * time.Millisecond
	writePause = 2 * time.Millisecond
	quietTime  = 20 * time.Millisecond
)

// errWritten is for a file that does not come to rest.
var errWritten = errors.New("somebody is writing it; it is read again when that is over")

// IsBeingWritten says whether err is that of a file which was not read since
// somebody has it open for writing.
func IsBeingWritten(err error) bool { return errors.Is(err, errWritten) }

// readWhole reads a file of which nobody writes a part meanwhile: a half of an
// ini can be an ini, too. While we hold a read lease nobody has the file open
// for writing, and whoever opens it waits until it is read (fcntl(2)); it can be
// had for files of one's own. For others, and where there are no leases, the
// file must have rested for a moment and be the same before and after.
func readWhole(f *os.File) ([]byte, error) {
	fd := int(f.Fd())
	for late := time.Now().Add(writeWait); ; time.Sleep(writePause) {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
		switch {
		case err == nil:
			data, err := readFromStart(f)
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
			return data, err
		case !errors.Is(err, unix.EAGAIN):
			if data, same, err := readResting(f); same || err != nil {
				return data, err
			}
		}
		if time.Now().After(late) {
			return nil, errWritten
		}
	}
}

func readFromStart(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return readAll(f)
}

// readResting reads a file without a lease. Files whose times say nothing, as
// those of /proc, have rested for long.
func readResting(f *os.File) (data []byte, same bool, err error) {
	before, err := f.Stat()
	if err != nil || time.Since(before.ModTime()).Abs() < quietTime {
		return nil, false, err
	}
	if data, err = readFromStart(f); err != nil {
		return nil, false, err
	}
	after, err := f.Stat()
	return data, err == nil && after.ModTime().Equal(before.ModTime()) && after.Size() == before.Size(), err
}
