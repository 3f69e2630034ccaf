package vassal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/unixsock"
)

// setnsGreeting begins the answer of a setns-socket; the number of descriptors
// follows, an int of the machine, and the descriptors come along.
const setnsGreeting = "uwsgi-setns"

// maxServed is what a client of uWSGI's takes.
const maxServed = 64

// served are the namespaces that can be joined: never the user namespace, and
// time only by who has one thread.
var served = []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}

// nsServer gives a generation's namespaces to whoever may connect, while the
// generation lives. It holds them: who comes meanwhile gets them even if the
// app is about to end.
type nsServer struct {
	listener *net.UnixListener
	fds      []int
	done     sync.WaitGroup
}

// serveNamespaces begins to listen; close ends it.
func serveNamespaces(iso *Isolation, pid int) (*nsServer, error) {
	s := &nsServer{}
	for _, name := range served {
		if slices.Contains(iso.Skip, name) {
			continue
		}
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(s.fds)
			return nil, fmt.Errorf("setns-socket: namespace %s: %w", name, err)
		}
		s.fds = append(s.fds, fd)
	}
	if err := s.listen(iso.Serve); err != nil {
		closeAll(s.fds)
		return nil, fmt.Errorf("setns-socket: %w", err)
	}
	s.done.Go(s.serve)
	return s, nil
}

// serve gives the namespaces away where the ini says so.
func (g *Generation) serve(iso *Isolation) (err error) {
	if iso.Serve != "" {
		g.names, err = serveNamespaces(iso, g.PID)
	}
	return err
}

// listen takes the place of a socket that an ended generation left, and of
// nothing else.
func (s *nsServer) listen(path string) error {
	if err := unixsock.RemoveStale(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// Who may not write to it cannot connect. It has its mode before its name.
	mode := func(_, _ string, conn syscall.RawConn) error {
		var result error
		err := conn.Control(func(fd uintptr) { result = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, result)
	}
	config := net.ListenConfig{Control: mode}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return err
	}
	s.listener = l.(*net.UnixListener)
	return nil
}

func (s *nsServer) serve() {
	text := binary.NativeEndian.AppendUint32([]byte(setnsGreeting), uint32(len(s.fds)))
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(50 * time.Millisecond) // no descriptors, for now
			continue
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _, _ = conn.WriteMsgUnix(text, unix.UnixRights(s.fds...), nil)
		_ = conn.Close()
	}
}

// close stops and removes the socket.
func (s *nsServer) close() error {
	err := s.listener.Close()
	s.done.Wait()
	closeAll(s.fds)
	return err
}
