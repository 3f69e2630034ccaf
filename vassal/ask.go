package vassal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ask asks an app in the jail by tcp or http; nil says that it is well. The
// socket is the jail's, so it goes no way that the app's own could not go.
func (j *Jail) Ask(ctx context.Context, p *Probe) error {
	addrs := append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, j.Addresses()...)
	var errs []error
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, p.Port)
		err := j.askAt(ctx, p, to)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer in time: %w", ctx.Err())
		}
		errs = append(errs, fmt.Errorf("%s: %w", to, err))
		if !errors.Is(err, unix.ECONNREFUSED) { // somebody is there, and is not well
			break
		}
	}
	return errs[len(errs)-1]
}

func (j *Jail) askAt(ctx context.Context, p *Probe, to netip.AddrPort) error {
	conn, err := j.connect(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.Kind != ProbeHTTP {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fiefdom\r\nConnection: close\r\n\r\n", p.Path, to); err != nil {
		return err
	}
	const longest = 512 // bytes of the status line
	line, err := bufio.NewReader(io.LimitReader(conn, longest)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	return answerOf(line)
}

// answerOf says whether the first line of an HTTP answer tells a success.
func answerOf(line string) error {
	words := strings.Fields(line)
	if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return fmt.Errorf("it does not answer in HTTP: %.60q", line)
	}
	if code, err := strconv.Atoi(words[1]); err != nil || code < 200 || code >= 400 {
		return fmt.Errorf("it answers with status %.20q", strings.Join(words[1:], " "))
	}
	return nil
}

// connect makes a connection from inside the jail. Only the socket is made
// there; waiting for it costs no thread.
func (j *Jail) connect(ctx context.Context, to netip.AddrPort) (*os.File, error) {
	family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: four(to.Addr())})
	if to.Addr().Is6() {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd := -1
	err := j.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	conn := os.NewFile(uintptr(fd), "check")
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	raw, err := conn.SyscallConn()
	var result error
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			result = unix.Connect(int(fd), addr)
			return !errors.Is(result, unix.EINPROGRESS) && !errors.Is(result, unix.EALREADY)
		})
	}
	if err = errors.Join(err, result); errors.Is(err, syscall.EISCONN) {
		err = nil
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, closed(conn))
	}
	return conn, nil
}

// closed closes a connection that its deadline may have closed already.
func closed(f *os.File) error {
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func four(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
