package vassal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Plan is what the init stage is told to do: everything resolved, nothing left
// to look up in the ini.
type Plan struct {
	Name      string   `json:"name"`
	Args      []string `json:"args"`
	Programs  []string `json:"programs,omitempty"` // tried one after the other in place of the first argument; empty: that
	Env       []string `json:"env"`
	HostEnv   []string `json:"host_env,omitempty"` // before Env; the emperor's own, and no part of what the vassal is
	CleanEnv  bool     `json:"clean_env"`          // only these, not the emperor's environment
	UID       int      `json:"uid"`                // -1: stay as we are
	GID       int      `json:"gid"`                // -1: stay as we are
	Groups    []int    `json:"groups"`
	SetGroups bool     `json:"set_groups"`
	Caps      []string `json:"caps"`
	Bounded   bool     `json:"bounded"` // drop all other capabilities for good, and no_new_privs
	KeepCaps  bool     `json:"keep_caps"`
	Chdir     string   `json:"chdir"`
	Chroot    string   `json:"chroot"`
	Umask     int      `json:"umask"` // -1: stay as we are
	LogTo     string   `json:"logto"`
	LogUID    int      `json:"log_uid"` // with whose rights LogTo is opened; -1: those of its folder's owner
	Logging   Logging  `json:"-"`       // the emperor's part
	Hooks     []Hook   `json:"hooks"`

	StartHook *StartHook `json:"start_hook,omitempty"`

	Mounts   bool     `json:"mounts"`          // a mount namespace of its own
	Proc     bool     `json:"proc"`            // a private /proc
	Resolv   string   `json:"resolv"`          // the file that becomes /etc/resolv.conf
	Hosts    string   `json:"hosts,omitempty"` // the file that becomes /etc/hosts; empty: the host's
	Reaper   bool     `json:"reaper"`          // pid 1 of a pid namespace: start the init stage beside it, reap, end with it
	Protocol bool     `json:"protocol"`        // the app gets the channel of the emperor protocol
	Settings Settings `json:"settings"`        // how the app takes its options; not without Protocol
	Exec     bool     `json:"exec"`            // the second stage: only what follows the reaper's start

	Joined  bool   `json:"joined"`  // a process more in a generation: no hooks, no registration
	Enter   int    `json:"enter"`   // the namespaces of the generation that it enters
	Nest    bool   `json:"nest"`    // a pid namespace of its own in the generation's: start a reaper there, wait, end with it
	Pidfile string `json:"pidfile"` // the app's pid is written here

	Terminal bool `json:"terminal"` // the app's 0 is a terminal, which becomes the one that controls its session

	Isolation  Isolation `json:"isolation"`
	Limits     Limits    `json:"limits"`
	Bound      []string  `json:"bound"`              // with BoundSet the capabilities that hooks and app can have at most
	BoundSet   bool      `json:"bound_set"`          //
	NoNewPrivs bool      `json:"no_new_privs"`       // without Bounded, whose part it is
	OwnIDs     bool      `json:"own_ids"`            // a user namespace knows UID and GID only
	Users      *Users    `json:"users,omitempty"`    // a user namespace with a range of ids; nil: the emperor's
	Inside     bool      `json:"inside,omitempty"`   // the stage that is in it: only what follows
	Level      Level     `json:"level,omitempty"`    // how far the app is confined
	Confined   *Confined `json:"confined,omitempty"` // nil: of a level that is not full

	outside map[string]*os.File // of the host's, by target, for a root of the ini's own; nil: there is none
	guarded bool                // guards and veils are known
	guards  []guard
	veils   []veil
	mounted map[string]int // what was mounted before the hooks; nil: there are none that could mount
	pass    int            // where the init stage tells its reaper whom it has passed on to; 0: nowhere
	mapped  *mapped        // how mounts show whose files are on disk; nil: as they are
}

// word is what the init stage says to the emperor.
type word struct {
	Waiting bool   `json:"waiting,omitempty"` // hooks as-root are done: register, then say go
	Log     bool   `json:"log,omitempty"`     // one descriptor comes along: LogTo's folder
	App     bool   `json:"app,omitempty"`     // one descriptor comes along: the app's pidfd
	Inside  bool   `json:"inside,omitempty"`  // with App: it is in the vassal's user namespace
	Plain   bool   `json:"plain,omitempty"`   // the jail does not show SettingsFile: the app gets arguments
	Error   string `json:"error,omitempty"`   // the last word

	Settled bool     `json:"settled,omitempty"` // there is no app: hold the namespaces, then say go
	Env     []string `json:"env,omitempty"`     // with Waiting and Settled: what the hooks have made of the environment
}

// goAhead is the emperor's answer to Waiting, Log and Settled.
type goAhead struct {
	Go bool `json:"go"`
}

// maxMessage is the largest message of the handshake in bytes; a socket pair's
// buffer takes twice that (net.core.wmem_default).
const maxMessage = 160 << 10

// pipe is one end of the SOCK_SEQPACKET pair between the emperor and an init
// stage. Messages are JSON; a descriptor may come along.
type pipe struct{ file *os.File }

// newPipe makes the pair: ours, and the file for the child.
func newPipe() (*pipe, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	// The child's end blocks: its flags are its own, and it has one thread to wait with.
	if err := unix.SetNonblock(fds[1], false); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &pipe{os.NewFile(uintptr(fds[0]), "handshake")}, os.NewFile(uintptr(fds[1]), "handshake"), nil
}

func (p *pipe) send(v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("the vassal's settings are %d bytes; at most %d fit", len(b), maxMessage)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return p.call(syscall.RawConn.Write, func(fd int) error { return unix.Sendmsg(fd, b, oob, nil, unix.MSG_NOSIGNAL) })
}

// receive reads one message into v. The descriptor that came along, or -1, is
// the caller's. io.EOF says that the other end is closed.
func (p *pipe) receive(v any) (int, error) {
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	err := p.call(syscall.RawConn.Read, func(fd int) (err error) {
		n, oobn, _, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return -1, err
	}
	fd := firstDescriptor(oob[:oobn])
	if n == 0 {
		return fd, io.EOF
	}
	return fd, json.Unmarshal(b[:n], v)
}

// call makes one system call, through the poller as long as it says EAGAIN.
func (p *pipe) call(wait func(syscall.RawConn, func(uintptr) bool) error, do func(fd int) error) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = wait(conn, func(fd uintptr) bool {
		result = do(int(fd))
		return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
	})
	return errors.Join(err, result)
}

func firstDescriptor(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	for _, extra := range fds[1:] {
		_ = unix.Close(extra)
	}
	return fds[0]
}

func (p *pipe) close() error { return p.file.Close() }
