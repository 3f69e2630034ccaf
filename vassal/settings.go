package vassal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// Settings is the way by which an app takes its options.
type Settings string

// The ways. By the last two an app that reloads itself finds its newest options.
const (
	SettingsNone Settings = ""     // it has none, or they are its arguments
	SettingsFile Settings = "file" // a uwsgi reads a file that only it sees, anew at each of its loads
	SettingsPipe Settings = "pipe" // a command reads uWSGI's config pipe
)

// Settings says how the app takes its options, and the ini that they make.
//
// A uwsgi could take them by the config pipe too ("emperor://"). But it could
// then not reload itself after the death of its emperor, and would have to find
// him quick, within 5 s, while he lives: a file in memory answers always.
func (c *Config) Settings() (Settings, []byte) {
	way, options := SettingsPipe, c.Pushed
	if len(c.App) > 0 {
		way, options = SettingsFile, c.appOptions()
	}
	if !c.Speaks() || len(options) == 0 {
		return SettingsNone, nil
	}
	document, err := writeIni(options)
	if err != nil {
		return SettingsNone, nil //nolint:nilerr // a uwsgi takes them as arguments; of a command Validate has told
	}
	return way, document
}

// writeIni writes options as an ini in which every value means itself. What the
// dialect's lines cannot hold is an error.
func writeIni(options []ini.Pair) ([]byte, error) {
	var b strings.Builder
	b.WriteString("[uwsgi]\n")
	for _, o := range options {
		if o.Key == "" || strings.ContainsAny(o.Key, "=%\n") || strings.ContainsAny(o.Key[:1], ";#[") || o.Key != strings.TrimSpace(o.Key) {
			return nil, fmt.Errorf("option %q: no line of an ini can have this name", o.Key)
		}
		if strings.ContainsAny(o.Value, "\n\x00") || o.Value != strings.TrimSpace(o.Value) {
			return nil, fmt.Errorf("option %s: a line break, or a blank at the end, of its value has no place in a line of an ini", o.Key)
		}
		fmt.Fprintf(&b, "%s = %s\n", o.Key, strings.ReplaceAll(o.Value, "%", "%%"))
	}
	return []byte(b.String()), nil
}

// checkSettings says what a command's config pipe cannot carry.
func (c *Config) checkSettings() error {
	if len(c.Pushed) == 0 {
		return nil
	}
	document, err := writeIni(c.Pushed)
	if err == nil {
		_, err = frame(document)
	}
	return err
}

// configModifier is the modifier1 of a config pipe's frame.
const configModifier = 115

// frame puts uWSGI's header before a document: modifier1, the length in
// little endian, modifier2.
func frame(document []byte) ([]byte, error) {
	if len(document) > math.MaxUint16 {
		return nil, fmt.Errorf("the app's options are %d bytes; its config pipe takes at most %d at once: keep some of them in a file that the app reads itself", len(document), math.MaxUint16)
	}
	b := append(make([]byte, 0, 4+len(document)), configModifier)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(document)))
	return append(append(b, 0), document...), nil
}

// settings is the emperor's end of an app's settings.
type settings struct {
	way   Settings
	file  *os.File
	plain bool // the app could not see the file, and got its options as arguments
}

// newSettings makes the emperor's end, with a document in it, and the app's.
func newSettings(way Settings, document []byte) (s *settings, theirs *os.File, err error) {
	if way == SettingsFile {
		s, theirs, err = newSettingsFile()
	} else {
		s, theirs, err = newConfigPipe()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("settings: %w", err)
	}
	if err := s.put(document); err != nil {
		return nil, nil, errors.Join(err, s.file.Close(), theirs.Close())
	}
	return s, theirs, nil
}

// newSettingsFile makes a file that has no name. The app's descriptor of it
// only reads, and the file's mode lets nobody but root open another.
func newSettingsFile() (*settings, *os.File, error) {
	fd, err := unix.MemfdCreate("settings", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("settings", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "settings")
	err = f.Chmod(0o444)
	if err == nil {
		var theirs *os.File
		if theirs, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			return &settings{way: SettingsFile, file: f}, theirs, nil
		}
	}
	return nil, nil, errors.Join(err, f.Close())
}

// newConfigPipe makes uWSGI's config pipe, a pair of stream sockets, with room
// for a whole frame.
func newConfigPipe() (*settings, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	const room = 4 * math.MaxUint16 // the kernel counts its own books too
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &settings{way: SettingsPipe, file: os.NewFile(uintptr(fds[0]), "config")}, os.NewFile(uintptr(fds[1]), "config"), nil
}

// fresh says whether what is put next is what the app reads next. In a pipe
// that has not been read the app would find an older document first.
func (s *settings) fresh() bool {
	if s.way == SettingsFile {
		return !s.plain
	}
	unread := 0
	err := s.do(func(fd int) (err error) {
		unread, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return err == nil && unread == 0
}

// put replaces the document of a file, and writes one into a fresh pipe. It
// never waits.
func (s *settings) put(document []byte) error {
	if s.way == SettingsFile {
		_, err := s.file.WriteAt(document, 0)
		return errors.Join(err, s.file.Truncate(int64(len(document))))
	}
	b, err := frame(document)
	if err != nil {
		return err
	}
	return s.do(func(fd int) error {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == nil && n < len(b) { // a frame that is not whole must not look like one
			err = errors.Join(fmt.Errorf("%d of %d bytes fit", n, len(b)), unix.Shutdown(fd, unix.SHUT_RDWR))
		}
		if err != nil {
			return fmt.Errorf("config pipe: %w", err)
		}
		return nil
	})
}

// do makes a system call on the descriptor.
func (s *settings) do(call func(fd int) error) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = call(int(fd)) })
	return errors.Join(err, result)
}

// TakesSettings says whether the app, when it loads again, finds the settings
// that it is given now.
func (g *Generation) TakesSettings() bool { return g.settings != nil && g.settings.fresh() }

// Renew gives the app new settings for its next load. It must take them.
func (g *Generation) Renew(document []byte) error {
	if g.settings == nil {
		return errors.New("the app takes its settings only when it starts")
	}
	return g.settings.put(document)
}

// settingsFD is the app's descriptor of its settings, where the init stage has
// it too.
const settingsFD = 5

// settingsPath is where a uwsgi finds its file: each open begins at its start.
const settingsPath = "/proc/self/fd/5"

// giveSettings lets the settings through exec and returns the app's argv. A
// jail without /proc has no name for the file: then the uwsgi gets its options
// as arguments, and the emperor is told.
func (plan *Plan) giveSettings(p *pipe) ([]string, error) {
	switch plan.Settings {
	case SettingsNone:
		return plan.Args, nil
	case SettingsFile:
		f, err := os.Open(settingsPath)
		if err != nil {
			return plan.Args, p.send(word{Plain: true})
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	case SettingsPipe:
		if err := os.Setenv("UWSGI_EMPEROR_FD_CONFIG", fmt.Sprint(settingsFD)); err != nil {
			return nil, err
		}
	}
	if _, err := unix.FcntlInt(settingsFD, syscall.F_SETFD, 0); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	if plan.Settings == SettingsPipe {
		return plan.Args, nil
	}
	return []string{plan.Args[0], "--safe-fd", fmt.Sprint(settingsFD), "--ini", settingsPath}, nil
}
