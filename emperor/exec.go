package emperor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// ExecSocket is where commands are run in a vassal's jail, in the runtime
// directory: SOCK_SEQPACKET, one connection a command. The first message is an
// ExecRequest with the command's 0, 1 and 2; what comes after are signals for
// it. Whoever hangs up ends it.
const ExecSocket = "exec.sock"

// ExecRequest asks for a command in a vassal's jail.
type ExecRequest struct {
	Vassal   string   `json:"vassal"`
	Args     []string `json:"args"`
	Terminal bool     `json:"terminal"` // 0 is a terminal, which shall control the command
	Term     string   `json:"term"`     // the kind of terminal (TERM); empty: none
}

// execAnswer is what the emperor says: that the command runs, why it does not,
// or how it ended.
type execAnswer struct {
	Running  bool   `json:"running,omitempty"`
	Error    string `json:"error,omitempty"`
	NotFound bool   `json:"not_found,omitempty"` // with Error: there is no such vassal, for who asks
	Ended    bool   `json:"ended,omitempty"`
	Code     int    `json:"code"`             // with Ended
	Signal   int    `json:"signal,omitempty"` // with Ended: what killed it
}

// execSignal is what who asked passes on.
type execSignal struct {
	Signal int `json:"signal"`
}

// execSignals are those that a command can be sent.
var execSignals = []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

const (
	maxExecRequest = 96 << 10 // bytes
	maxTerm        = 64       // bytes
	execFiles      = 3
)

// ServeExec runs commands in jails until ctx is done.
func (e *Emperor) ServeExec(ctx context.Context) error {
	path := e.Instance.Path(ExecSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // a dead emperor's; the instance is ours
		return fmt.Errorf("commands in jails: %w", err)
	}
	l, err := net.Listen("unixpacket", path)
	if err != nil {
		return fmt.Errorf("commands in jails: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := os.Chmod(path, 0o666); err != nil { // as the control API
		return errors.Join(err, l.Close())
	}
	limited := newCallers(l, execClients, e.turnAway)
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := limited.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			e.Log.Warn("commands in jails", "err", err)
			select {
			case <-time.After(acceptPause): // out of descriptors, most likely
				continue
			case <-ctx.Done():
				return nil
			}
		}
		clients.Go(func() {
			defer c.Close()
			hangUp := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer hangUp()
			if s, ok := c.(*slotConn); ok {
				e.serveExec(ctx, s)
			}
		})
	}
}

// serveExec is one command, from the request to its end.
func (e *Emperor) serveExec(ctx context.Context, c *slotConn) {
	conn, ok := c.Conn.(*net.UnixConn)
	if !ok {
		return
	}
	say := func(a execAnswer) {
		if b, err := json.Marshal(a); err == nil && conn.SetWriteDeadline(time.Now().Add(apiSilence)) == nil {
			_, _ = conn.Write(b) // who hung up does not want to know
		}
	}
	req, files, err := receiveExec(conn)
	defer func() { closeFiles(files) }()
	if err != nil {
		say(execAnswer{Error: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan syscall.Signal, 1)
	hearing := make(chan struct{})
	go func() { // ends with the connection
		defer close(hearing)
		defer cancel()
		hearSignals(ctx, conn, signals)
	}()
	defer func() { _ = conn.Close(); <-hearing }()

	guest, err := e.execute(ctx, c.uid, req, files)
	if err != nil {
		say(execAnswer{Error: err.Error(), NotFound: errors.Is(err, ErrNotFound)})
		return
	}
	closeFiles(files) // the command has its own: a pipe's reader waits for the last
	files = nil
	stop := context.AfterFunc(ctx, guest.Kill)
	defer stop()
	ended := make(chan struct{})
	passing := sync.WaitGroup{}
	passing.Go(func() {
		for {
			select {
			case sig := <-signals:
				_ = guest.Signal(sig)
			case <-ended:
				return
			}
		}
	})
	say(execAnswer{Running: true})
	exit := guest.Wait()
	close(ended)
	passing.Wait()
	if exit.Err != nil {
		e.Log.Error("cleaning up after a command", "vassal", req.Vassal, "err", exit.Err)
	}
	e.Log.Info("command ended", "vassal", req.Vassal, "pid", guest.PID, "result", exit.String())
	say(execAnswer{Ended: true, Code: exit.Code, Signal: int(exit.Signal)})
}

// receiveExec reads the request. The files are the caller's, also with an error.
func receiveExec(conn *net.UnixConn) (req ExecRequest, files []*os.File, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(apiSilence)); err != nil {
		return req, nil, err
	}
	size, err := awaitMessage(conn) // who asks nothing costs no buffer
	if err != nil {
		return req, nil, err
	}
	b, oob := make([]byte, min(size, maxExecRequest+1)), make([]byte, unix.CmsgSpace(4*execFiles))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return req, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil {
		for _, m := range messages {
			fds, ferr := unix.ParseUnixRights(&m)
			err = errors.Join(err, ferr)
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "of a command"))
			}
		}
	}
	switch {
	case err != nil:
		return req, files, fmt.Errorf("descriptors: %w", err)
	case n > maxExecRequest:
		return req, files, fmt.Errorf("the command is too long: at most %d bytes fit", maxExecRequest)
	case len(files) != execFiles:
		return req, files, fmt.Errorf("want %d descriptors with the request, got %d", execFiles, len(files))
	}
	if err := json.Unmarshal(b[:n], &req); err != nil {
		return req, files, fmt.Errorf("request: %w", err)
	}
	if len(req.Args) == 0 {
		return req, files, errors.New("no command; want NAME -- COMMAND [ARGUMENT...]")
	}
	if len(req.Term) > maxTerm {
		req.Term = ""
	}
	return req, files, conn.SetReadDeadline(time.Time{})
}

// awaitMessage waits for a message, and says how many bytes it has.
func awaitMessage(conn *net.UnixConn) (size int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var result error
	err = raw.Read(func(fd uintptr) bool {
		size, _, result = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
	})
	return size, errors.Join(err, result)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // another's; what it has to say is for him
	}
}

// hearSignals passes signals on until who asked hangs up.
func hearSignals(ctx context.Context, conn *net.UnixConn, to chan<- syscall.Signal) {
	b := make([]byte, 256)
	for {
		n, err := conn.Read(b)
		if n == 0 || err != nil {
			return
		}
		var s execSignal
		if json.Unmarshal(b[:n], &s) != nil || !slices.Contains(execSignals, syscall.Signal(s.Signal)) {
			return
		}
		select {
		case to <- syscall.Signal(s.Signal):
		case <-ctx.Done():
			return
		}
	}
}

// execute starts a command for a user in a vassal's jail.
func (e *Emperor) execute(ctx context.Context, uid uint32, req ExecRequest, files []*os.File) (*vassal.Generation, error) {
	host, err := e.host(uid, req.Vassal)
	if err != nil {
		return nil, err
	}
	var term []string
	if req.Term != "" {
		term = []string{"TERM=" + req.Term}
	}
	l := vassal.Launch{
		Plan: host.Beside(req.Args), Group: true,
		Stdin: files[0], Output: files[1], Errors: files[2],
	}
	l.Plan.Env, l.Plan.Terminal = term, req.Terminal
	release, err := slot(ctx, e.visits)
	if err != nil {
		return nil, err
	}
	defer release()
	guest, err := e.visit(ctx, host, "exec", l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.Vassal, err)
	}
	// gofail: var guestStarted struct{}
	e.Log.Info("command runs", "vassal", req.Vassal, "pid", guest.PID, "by", uid, "command", req.Args[0])
	return guest, nil
}

// visit starts a process beside a generation's own, in a cgroup below its.
func (e *Emperor) visit(ctx context.Context, host *vassal.Generation, kind string, l vassal.Launch) (*vassal.Generation, error) {
	var err error
	if base := host.Cgroup(); base != "" {
		if l.Cgroup, err = base.Make(fmt.Sprintf("%s.%d", kind, e.visited.Add(1))); err != nil {
			return nil, err
		}
	}
	return host.Enter(ctx, l)
}

// host is a vassal's generation for who may touch the vassal; for others there
// is no such vassal.
func (e *Emperor) host(uid uint32, name string) (*vassal.Generation, error) {
	type found struct {
		gen   *vassal.Generation
		state State
	}
	answer := make(chan *found, 1)
	e.call(func() {
		v := e.vassals[name]
		if v == nil || !mayBeTouched(uid, v.status()) {
			answer <- nil
			return
		}
		gen := v.gen
		if v.state == Starting {
			gen = v.begun
		}
		answer <- &found{gen, v.state}
	})
	select {
	case f := <-answer:
		switch {
		case f == nil:
			return nil, NotFound("no vassal %q", name)
		case f.gen == nil || f.state != Running && f.state != Starting:
			return nil, fmt.Errorf("vassal %q is %s, and a command needs one that runs; see fiefdom status %s", name, f.state, name)
		}
		return f.gen, nil
	case <-e.stopped:
		return nil, errors.New("the emperor is stopping")
	}
}
