package hostile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ownRun      = "a /run of its own; masks"
	ownTop      = "no folder beside the system's is seen, but what is named"
	connectTime = time.Second
)

var socketRows = []Row{
	{
		"host-sockets", "sockets", "connects to every unix socket that it finds: Docker's, containerd's, D-Bus, systemd's, databases'",
		ownRun, func(s *Site) Finding { return anyOf(append(findSockets(), s.Sockets...), s.connects) },
	},
	{
		"other-apps", "sockets", "connects to other apps' own sockets in /srv, /home, /var and the like, of mode 0777",
		ownTop, func(s *Site) Finding {
			return anyOf(append(socketsBelow("/srv", "/home", "/mnt", "/data"), s.Apps...), s.connects)
		},
	},
	{
		"abstract-sockets", "sockets", "connects to abstract sockets of the host's",
		"a network namespace of its own", func(s *Site) Finding {
			return anyOf(s.Abstract, func(name string) Finding { return s.connects("@" + name) })
		},
	},
	{
		"foreign-abstract", "sockets", "finds abstract sockets that are not its own (/proc/net/unix)",
		"a network namespace of its own", func(s *Site) Finding {
			text, err := os.ReadFile("/proc/net/unix")
			if err != nil {
				return contained("%v", err)
			}
			for line := range strings.Lines(string(text)) {
				if _, name, ok := strings.Cut(line, " @"); ok && !strings.Contains(name, "notify") {
					return escaped("@%s", strings.TrimSpace(name))
				}
			}
			return contained("there is none")
		},
	},
	{
		"system-log", "sockets", "writes to the host's log (/dev/log, journald)",
		ownRun, func(s *Site) Finding {
			return anyOf([]string{"/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/socket", "/run/systemd/journal/stdout"}, s.connects)
		},
	},
	{
		"vsock", "sockets", "speaks to the hypervisor below the host (AF_VSOCK)",
		filtered, func(*Site) Finding { return family(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	},
}

var doorRows = []Row{
	{"control-api", "doors of the emperor", "connects to the control API", ownRun, door("api.sock")},
	{"exec-door", "doors of the emperor", "connects to where fiefdom exec knocks", ownRun, door("exec.sock")},
	{"vault-door", "doors of the emperor", "connects to the vault, which holds the emperor's descriptors", ownRun, door("vault.sock")},
	{"router-door", "doors of the emperor", "connects to the router's door, where its next emperor knocks", ownRun, door("router.sock")},
	{"log-pipe", "doors of the emperor", "writes lines into the emperor's log, by the pipe of the routers", ownRun, func(s *Site) Finding {
		path := filepath.Join(s.Runtime, "log")
		if f := opens(path, unix.O_WRONLY); f.Outcome != Contained {
			return f
		}
		return opens(path, unix.O_RDWR)
	}},
	{"runtime-folder", "doors of the emperor", "lists the emperor's runtime directory", ownRun, func(s *Site) Finding { return lists(s.Runtime) }},
}

// door is the attempt to connect to a socket in the runtime directory.
func door(name string) func(*Site) Finding {
	return func(s *Site) Finding { return s.connects(filepath.Join(s.Runtime, name)) }
}

// connects says whether somebody's unix socket lets us in. A name with @ is one
// of an abstract socket.
func (s *Site) connects(path string) Finding {
	var last error
	for _, kind := range []string{"unix", "unixpacket", "unixgram"} {
		conn, err := net.DialTimeout(kind, path, connectTime)
		if err == nil {
			conn.Close()
			return escaped("%s lets it in", path)
		}
		if last = err; !errors.Is(err, unix.EPROTOTYPE) {
			break
		}
	}
	if errors.Is(last, unix.ENOENT) {
		return absent("%v", last)
	}
	return contained("%v", last)
}

// findSockets are the files of sockets where they usually are. Who may list no
// folder knows the names.
func findSockets() (paths []string) {
	paths = []string{"/run/docker.sock", "/var/lib/mysql/mysql.sock", "/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket", "/var/lib/incus/unix.socket"}
	return append(paths, socketsBelow("/run", "/var/run/", "/tmp", "/var/tmp", "/var/lib", "/dev")...)
}

func socketsBelow(tops ...string) (paths []string) {
	const most = 20000 // of files: a tree may be deep
	seen := 0
	for _, top := range tops {
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if seen++; seen > most {
				return fs.SkipAll
			}
			if err == nil && e.Type()&fs.ModeSocket != 0 {
				paths = append(paths, path)
			}
			return nil
		})
	}
	return paths
}

// family says whether sockets of a kind can be made.
func family(domain, kind, protocol int) Finding {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		_ = unix.Close(fd)
	}
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return absent("%v", err)
	}
	return judge(err)
}
