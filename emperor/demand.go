package emperor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/shlex"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// OnDemand says which vassals begin with their first connection, and where
// their doors are. Of the three forms the first that is set counts, as in uWSGI.
type OnDemand struct {
	Extension string // a file with the ini's name and this behind it holds the address
	Directory string // NAME.socket in it is the door
	Exec      string // a command that prints the address; without any, the vassal is none of these

	Rights vassal.SocketRights // of doors whose inis say nothing
}

// Bounds of a command that prints an address, and of a file that holds one.
const (
	demandTime  = 10 * time.Second
	demandBytes = 4096
	demandSlots = 4 // commands at a time
)

// withDoor adds what the scan needs to know of the file that holds a vassal's
// address, if there is one. In tyrant mode a neighbour's is none: in a folder of
// many he could put a file beside any ini.
func (c *Config) withDoor(f iniFile) (iniFile, error) {
	if c.OnDemand.Extension == "" {
		return f, nil
	}
	path := f.path + c.OnDemand.Extension
	link, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	door, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		f.door = path // one that cannot be looked at is an error of the vassal
		return f, nil
	}
	if c.Tyrant {
		if whose, strange := f.stranger(link, door); strange {
			return f, fmt.Errorf("%s is no socket's address of %s: it was put there by uid %d, who is neither root nor uid %d; remove it", printable([]byte(path)), f.path, whose, f.owner.uid)
		}
	}
	f.door, f.doorID = path, idOf(door)
	return f, nil
}

// stranger says who put a file beside the ini, if it was neither root nor the
// ini's owner.
func (f iniFile) stranger(link, target fs.FileInfo) (uid uint32, is bool) {
	for _, info := range []fs.FileInfo{link, target} {
		if uid = ownerOf(info).uid; uid != 0 && uid != f.owner.uid {
			return uid, true
		}
	}
	return uid, false
}

// readDoor reads the file that holds a vassal's address, with the rights of
// the caller.
func (x *expansion) readDoor(path string) {
	b, err := ini.ReadFile(path, nil)
	if err == nil && len(b) > demandBytes {
		err = fmt.Errorf("%d bytes are no address", len(b))
	}
	if err != nil {
		x.Errors = append(x.Errors, ini.Error{Pos: ini.Pos{File: path}, Message: "on demand: " + err.Error()})
		return
	}
	x.Door = firstWord(string(b))
}

// findDoors finds out where the doors of good inis are. It runs beside the loop.
func (e *Emperor) findDoors(ctx context.Context, got []expansion) {
	slots := make(chan struct{}, demandSlots)
	var wg sync.WaitGroup
	for i := range got {
		x := &got[i]
		if x.Config == nil || x.Errors.Failed() {
			continue
		}
		if e.Config.OnDemand.form() != byExec {
			e.Config.OnDemand.find(x)
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			e.askForDoor(ctx, x)
		})
	}
	wg.Wait()
}

type demandForm int

const (
	notOnDemand demandForm = iota
	byExtension
	byDirectory
	byExec
)

func (o *OnDemand) form() demandForm {
	switch {
	case o.Extension != "":
		return byExtension
	case o.Directory != "":
		return byDirectory
	case o.Exec != "":
		return byExec
	}
	return notOnDemand
}

// find is for the forms that need no command.
func (o *OnDemand) find(x *expansion) {
	switch o.form() {
	case byExtension:
		if x.file.door != "" {
			x.setDoor(x.Door, ini.Pos{File: x.file.door})
		}
	case byDirectory:
		x.setDoor(filepath.Join(o.Directory, x.Name+".socket"), ini.Pos{File: x.file.path})
	}
}

// setDoor notes the address that was found for a good ini.
func (x *expansion) setDoor(text string, pos ini.Pos) {
	dir, err := filepath.Abs(filepath.Dir(x.file.path))
	if err == nil {
		var a address
		if a, err = parseAddress(text, dir); err == nil {
			x.Config.Door = a.String()
			return
		}
	}
	x.Errors = append(x.Errors, ini.Error{Pos: pos, Message: "on demand: " + err.Error()})
}

// askForDoor runs the command of emperor-on-demand-exec. The ini's name is an
// argument of its own, so that a name means nothing to the shell.
func (e *Emperor) askForDoor(ctx context.Context, x *expansion) {
	pos := ini.Pos{File: x.file.path}
	report := func(warning bool, format string, args ...any) {
		x.Errors = append(x.Errors, ini.Error{Pos: pos, Warning: warning, Message: "emperor-on-demand-exec: " + printable(fmt.Appendf(nil, format, args...))})
	}
	command := e.Config.OnDemand.Exec
	ctx, cancel := context.WithTimeout(ctx, demandTime)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command+` "$1"`, "sh", x.file.path)
	// As uWSGI names them: in a folder by the file, elsewhere by the path.
	if dir := filepath.Dir(x.file.path); slices.ContainsFunc(e.Config.Monitors, func(m Monitor) bool { return m.Pattern == "" && m.Dir == dir }) {
		cmd.Dir, cmd.Args[len(cmd.Args)-1] = e.Config.workDir(x.file.path), filepath.Base(x.file.path)
	}
	if e.Config.Tyrant {
		if err := checkProgram(command, cmd.Dir); err != nil {
			report(false, "%v", err)
			return
		}
	}
	limited := &limitedBuffer{Buffer: &out, left: demandBytes}
	cmd.Stdout = limited
	cmd.Stderr = &limitedBuffer{Buffer: &complaints, left: demandBytes}
	err := runBelow(e.Cgroup, "door", cmd)
	text := firstWord(out.String())
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		report(false, "it takes longer than %s", demandTime)
	case limited.full:
		report(false, "it writes more than the %d bytes of an address", demandBytes)
	case err != nil && (!errors.As(err, &exit) || !exit.Exited()):
		report(false, "%v %s", err, firstLine(complaints.String()))
	case text == "":
		if err != nil {
			report(true, "%v, and no address: the vassal starts at once %s", err, firstLine(complaints.String()))
		}
	default:
		x.setDoor(text, pos)
	}
}

// checkProgram refuses a command that runs a file which somebody else than the
// emperor's user could have written: in tyrant mode folders may be tenants'.
// Relative names begin in dir.
func checkProgram(command, dir string) error {
	words, err := shlex.Split(command)
	if err != nil {
		return err
	}
	for i, word := range words {
		if path, err := exec.LookPath(word); i == 0 && err == nil {
			word = path
		}
		if !filepath.IsAbs(word) {
			word = filepath.Join(dir, word)
		}
		st, err := os.Stat(word)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() && uid != 0 || st.Mode().Perm()&0o022 != 0 {
			return fmt.Errorf("%s belongs to uid %d with mode %o; in tyrant mode the emperor runs only what nobody but root can write", word, uid, st.Mode().Perm())
		}
	}
	return nil
}

// doorOf works out what the vassal's door should be like: where it was found,
// and for whom. The app gets it open; its file's rights are about who connects.
func (e *Emperor) doorOf(r *resolved, c *vassal.Config) error {
	if c.Door == "" {
		return nil
	}
	a, err := parseAddress(c.Door, "/")
	if err != nil {
		return err
	}
	for _, v := range e.vassals {
		if v.name != c.Name && !v.removed && v.config != nil && v.config.Door == c.Door {
			return fmt.Errorf("socket %s is already that of %s; a socket wakes one vassal", a, v.file.path)
		}
	}
	if len(c.App) == 0 && len(c.Command) == 0 && !slices.ContainsFunc(c.Attached, func(d vassal.Attached) bool { return d.Stdin }) {
		return fmt.Errorf("nobody would take the connections of socket %s; write command = PROGRAM ARGUMENTS, or stdin=true in attach-daemon2", a)
	}
	s := doorSpec{address: a, rights: doorRights{uid: r.plan.UID, gid: r.plan.GID, mode: 0o666}} // uWSGI's mode
	s.rights.allow(e.Config.OnDemand.Rights)
	if e.Config.Tyrant {
		uid, gid := r.plan.OnDisk()
		own := owner{uint32(uid), uint32(gid)}
		if rights := c.Socket; rights.UID != nil && *rights.UID != int(own.uid) || rights.GID != nil && *rights.GID != int(own.gid) {
			return errors.New("chown-socket names somebody else than the ini's owner, which is not allowed in tyrant mode")
		}
		if e.Config.OnDemand.form() == byExtension { // the owner's own word
			if !a.isFile() {
				return fmt.Errorf("socket %s: in tyrant mode the owner of an ini can have a path; ports and abstract names are the operator's to give (emperor-on-demand-exec)", a)
			}
			s.as = &own
		}
		s.rights.uid = int(own.uid)
	}
	s.rights.allow(c.Socket)
	r.door = &s
	behind := c.Behind(func(value string) bool {
		own, err := parseAddress(value, filepath.Dir(c.File))
		return err == nil && own == a
	})
	r.employ(behind)
	return nil
}

func (d *doorRights) allow(r vassal.SocketRights) {
	if r.Mode != nil {
		d.mode = *r.Mode
	}
	if r.UID != nil {
		d.uid = *r.UID
	}
	if r.GID != nil {
		d.gid = *r.GID
	}
}

func setDemandExtension(c *Config, p ini.Pair) error {
	if p.Value == "" || strings.ContainsRune(p.Value, '/') {
		return fmt.Errorf("%s = %s: want the end of a file's name such as .socket", p.Key, p.Value)
	}
	c.OnDemand.Extension = p.Value
	return nil
}

func setDemandDirectory(c *Config, p ini.Pair) error {
	if p.Value == "" {
		return fmt.Errorf("%s: want a directory", p.Key)
	}
	c.OnDemand.Directory = filepath.Clean(p.Value)
	return nil
}

func setDemandExec(c *Config, p ini.Pair) error {
	if p.Value == "" {
		return fmt.Errorf("%s: want a command", p.Key)
	}
	c.OnDemand.Exec = p.Value
	return nil
}
