package emperor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"fiefdom/internal/unixsock"
	"fiefdom/vassal"
)

// door is the listening socket of an on demand vassal. The emperor holds it and
// gives it to each generation of the app as its stdin, so whatever becomes of
// the app, connections wait in its backlog. The emperor only looks whether
// somebody waits; it never accepts. The file system may make its methods wait:
// they are for beside the loop.
type door struct {
	address address
	as      *owner // with whose rights its file is made and removed; nil: the emperor's

	changed func() // it was opened or closed; nil: nobody minds. The caller has mu

	before <-chan struct{} // closed when the door before this one is gone; nil: there was none
	gone   chan struct{}   // closed by close

	mu       sync.Mutex
	rights   doorRights
	file     *os.File // listens; nil: not opened yet
	dev, ino uint64   // of the socket's file
	closed   bool
}

// doorSpec is what a door should be like.
type doorSpec struct {
	address address
	as      *owner
	rights  doorRights
}

// doorRights say who may connect, where the door is a file.
type doorRights struct {
	uid, gid int // -1: the emperor's
	mode     uint32
}

// backlog is how many connections may wait; net.core.somaxconn may be less.
const backlog = 4096

func newDoor(s doorSpec, before <-chan struct{}) *door {
	return &door{address: s.address, as: s.as, rights: s.rights, before: before, gone: make(chan struct{})}
}

// is says whether the door can become what s says by other rights alone.
func (d *door) is(s *doorSpec) bool {
	sameOwner := d.as == s.as || d.as != nil && s.as != nil && *d.as == *s.as
	return d.address == s.address && sameOwner
}

// open makes the socket, if it is not there yet. The caller has d.mu.
func (d *door) open() error {
	if d.before != nil {
		<-d.before // bounded by the file system alone
	}
	if d.closed {
		return errors.New("the vassal was stopped meanwhile")
	}
	if d.file != nil {
		return nil
	}
	family, sa := d.address.sockaddr()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), d.address.String())
	if err = d.bind(fd, sa); err == nil {
		// gofail: var doorBound struct{}
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return errors.Join(err, d.removeFile(), f.Close())
	}
	d.file = f
	// gofail: var doorListens struct{}
	d.tell()
	return nil
}

func (d *door) tell() {
	if d.changed != nil {
		d.changed()
	}
}

func (d *door) bind(fd int, sa unix.Sockaddr) error {
	if !d.address.isFile() {
		if d.address.path == "" {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
		}
		return unix.Bind(fd, sa)
	}
	// bind(2) makes the file with the socket's mode: until it has its own, nobody
	// gets in.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return err
	}
	err := asOwner(d.as, func() error {
		if err := unixsock.RemoveStale(d.address.path); err != nil {
			return err
		}
		return unix.Bind(fd, sa)
	})
	if err != nil {
		return err
	}
	return d.setRights(fd)
}

// setRights gives the socket's file its owner and mode. It works on the file
// that was bound, whatever is at the path by now.
func (d *door) setRights(fd int) error {
	path, err := unixsock.File(fd)
	if err != nil {
		return fmt.Errorf("find the socket's file: %w", err)
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return err
	}
	d.dev, d.ino = st.Dev, st.Ino
	if err := unix.Fchownat(path, "", d.rights.uid, d.rights.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("owner %d:%d: %w", d.rights.uid, d.rights.gid, err)
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", path), d.rights.mode)
}

// change gives a door that may be open other rights.
func (d *door) change(r doorRights) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rights == r {
		return nil
	}
	d.rights = r
	if d.file == nil || !d.address.isFile() {
		return nil
	}
	return d.control(d.setRights)
}

func (d *door) control(do func(fd int) error) error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = do(int(fd)) })
	return errors.Join(err, result)
}

// duplicate opens the door and returns a descriptor of it, the caller's. The
// socket blocks, as apps expect, whatever the app before has made of it. The
// caller has d.mu.
func (d *door) duplicate() (int, error) {
	if err := d.open(); err != nil {
		return -1, fmt.Errorf("socket %s: %w", d.address, err)
	}
	fd := -1
	err := d.control(func(own int) (err error) {
		if err := unix.SetNonblock(own, false); err != nil {
			return err
		}
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return fd, err
}

// prepare opens the door.
func (d *door) prepare() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.open(); err != nil {
		return fmt.Errorf("socket %s: %w", d.address, err)
	}
	return nil
}

// stdin is the door as an app gets it.
func (d *door) stdin() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, err := d.duplicate()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "stdin"), nil
}

// watchable is the door in the poller. Only files that do not block get in
// there; the flag is the socket's, so no app may be given it meanwhile.
func (d *door) watchable() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, err := d.duplicate()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "door")
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// await opens the door and returns when somebody waits there, or with an error
// when ctx is done. It waits in the poller: no thread, and no wakeup for the
// connections of an app that runs.
func (d *door) await(ctx context.Context) error {
	f, err := d.watchable()
	if err != nil {
		return err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	err = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
	if ctx.Err() != nil {
		return ctx.Err() // it closed the file
	}
	return err
}

// waiting says whether somebody waits at the door.
func (d *door) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	waits := false
	if d.file != nil {
		_ = d.control(func(fd int) error { waits = readable(fd); return nil })
	}
	return waits
}

func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// lost says whether the file of the open door is gone, or another's by now:
// then nobody can come.
func (d *door) lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file != nil && d.address.isFile() && !d.there()
}

// there says whether the socket's file is where it was made. The caller has d.mu.
func (d *door) there() bool {
	var st unix.Stat_t
	err := unix.Lstat(d.address.path, &st)
	return err == nil && st.Dev == d.dev && st.Ino == d.ino
}

// close closes the door for good and removes its file, if it is still there.
func (d *door) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	defer close(d.gone)
	if d.file == nil {
		return nil
	}
	err := d.removeFile() // before anybody forgets whose it is
	// gofail: var doorRemoved struct{}
	d.tell()
	return errors.Join(err, d.file.Close())
}

// removeFile removes the socket's file, unless it is gone or another's by now.
func (d *door) removeFile() error {
	if d.ino == 0 {
		return nil
	}
	return asOwner(d.as, func() error {
		if !d.there() {
			return nil
		}
		return unix.Unlink(d.address.path)
	})
}

// asOwner runs do with the rights of a socket's owner; nil: with our own.
func asOwner(o *owner, do func() error) error {
	if o == nil {
		return do()
	}
	return vassal.RightsOf(int(o.uid), int(o.gid))(do)
}
