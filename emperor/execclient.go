package emperor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec runs a command in a vassal's jail, with three descriptors of the
// caller's, passes signals on to it, and returns its exit code: 128 and the
// signal's number if a signal killed it, as in a shell. started, if not nil, is
// called once the command runs.
func Exec(ctx context.Context, runtime string, req ExecRequest, files []*os.File, signals <-chan os.Signal, started func()) (int, error) {
	path := filepath.Join(runtime, ExecSocket)
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("it does not run (%w): %w", err, ErrNotFound)
		}
		return 0, fmt.Errorf("ask the emperor: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	b, err := json.Marshal(req)
	if err != nil {
		return 0, err
	}
	if len(b) > maxExecRequest {
		return 0, fmt.Errorf("the command is too long: %d bytes, at most %d fit", len(b), maxExecRequest)
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil {
		return 0, fmt.Errorf("ask the emperor: %s (%w)", notHeard, err)
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case s := <-signals:
				if n, ok := s.(syscall.Signal); ok {
					if b, err := json.Marshal(execSignal{int(n)}); err == nil {
						_, _ = conn.Write(b) // its end is seen by who reads
					}
				}
			case <-over:
				return
			}
		}
	}()
	return awaitExec(conn, started)
}

func awaitExec(conn *net.UnixConn, started func()) (int, error) {
	b := make([]byte, 64<<10)
	for running := false; ; {
		n, err := conn.Read(b)
		if (n == 0 || err != nil) && !running {
			return 0, errors.Join(errors.New("the emperor hung up: "+notHeard), err)
		}
		if n == 0 || err != nil {
			return 0, errors.Join(errors.New("the emperor hung up, and the command has ended with that"), err)
		}
		var a execAnswer
		if err := json.Unmarshal(b[:n], &a); err != nil {
			return 0, fmt.Errorf("the emperor's answer: %w", err)
		}
		switch {
		case a.NotFound:
			return 0, notFound(a.Error)
		case a.Error != "":
			return 0, errors.New(a.Error)
		case a.Running:
			if running = true; started != nil {
				started()
			}
		case a.Ended && a.Signal != 0:
			return 128 + a.Signal, nil
		case a.Ended:
			return a.Code, nil
		}
	}
}

// notFound is an answer of the emperor's that is ErrNotFound too.
type notFound string

// NotFound is an error that is ErrNotFound too, and says so in its own words.
func NotFound(format string, args ...any) error { return notFound(fmt.Sprintf(format, args...)) }

func (e notFound) Error() string   { return string(e) }
func (e notFound) Is(t error) bool { return t == ErrNotFound }
