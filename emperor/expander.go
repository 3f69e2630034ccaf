package emperor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// ExpanderProcess is the word on the command line that makes our binary an expander.
const ExpanderProcess = "expander"

// Bounds of one expander process.
const (
	expandBatch   = 256              // files
	expandTime    = 10 * time.Second // for a batch
	expandMemory  = 512 << 20        // bytes of private memory
	expandAnswers = 64 << 20         // bytes that it may answer
	expandAnswer  = 4 << 20          // bytes about one file
	expandErrors  = 200              // about one file
)

type expandRequest struct {
	Common Common              `json:"common"`
	Files  []expandFileRequest `json:"files"`
}

type expandFileRequest struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Section  string `json:"section,omitempty"`
	Skeleton bool   `json:"skeleton,omitempty"`
	Show     bool   `json:"show,omitempty"` // the options, instead of what they make
	Door     string `json:"door,omitempty"` // the file that holds the address of its socket
}

// expansion is what became of one file.
type expansion struct {
	Name   string         `json:"name"`
	Config *vassal.Config `json:"config,omitempty"`
	Errors ini.Errors     `json:"errors,omitempty"` // warnings too
	Pairs  []ini.Pair     `json:"pairs,omitempty"`  // of a file to show
	Unrest bool           `json:"unrest,omitempty"` // somebody was writing a file that it needs
	Door   string         `json:"door,omitempty"`   // what the file of its socket says

	file  iniFile // as the scan saw it that asked
	later bool    // nobody has read it, for a want that passes
}

// expandAll expands files of one owner in a process under the owner's uid. A
// batch that fails as a whole is tried file by file, so that one hostile ini
// costs its owner that one only.
func (x *expanders) expandAll(ctx context.Context, o owner, files []iniFile) []expansion {
	files, refused := refusedFirst(files)
	if len(files) == 0 {
		return refused
	}
	return append(refused, x.expandFiles(ctx, o, files)...)
}

func (x *expanders) expandFiles(ctx context.Context, o owner, files []iniFile) []expansion {
	got, err := x.expandOnce(ctx, o, files)
	if err == nil {
		return got
	}
	later := vassal.Passing(err)
	if len(files) > 1 && ctx.Err() == nil && !later {
		var all []expansion
		for _, f := range files {
			all = append(all, x.expandFiles(ctx, o, []iniFile{f})...)
		}
		return all
	}
	all := make([]expansion, len(files))
	for i, f := range files {
		all[i] = expansion{Name: f.name, file: f, later: later, Errors: ini.Errors{{Pos: ini.Pos{File: f.path}, Message: printable([]byte(err.Error()))}}}
	}
	return all
}

// expanders starts expander processes. With a cgroup each is born into one of
// its own and ended with everything that it started: an ini may run commands.
type expanders struct {
	cgroup vassal.Cgroup // of the instance; empty where there is no v2 tree
	limit  time.Duration // for a batch; 0: expandTime
	common Common
}

// run runs one process to its end, and ends what it has started.
func (x *expanders) run(cmd *exec.Cmd) error { return runBelow(x.cgroup, "expander", cmd) }

func (x *expanders) expandOnce(ctx context.Context, o owner, files []iniFile) ([]expansion, error) {
	limit := cmp.Or(x.limit, expandTime)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req := expandRequest{Common: x.common}
	for _, f := range files {
		req.Files = append(req.Files, f.request())
	}
	in, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, vassal.Program)
	cmd.Args = []string{os.Args[0], ExpanderProcess, strconv.Itoa(int(o.uid)), strconv.Itoa(int(o.gid))}
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stdout = &limitedBuffer{Buffer: &out, left: expandAnswers}
	cmd.Stderr = &limitedBuffer{Buffer: &complaints, left: 4096}
	if o.uid != 0 {
		cmd.Env = CleanEnv("/") // $(NAME) in an owner's ini must not read the emperor's secrets
	}
	err = x.run(cmd)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, errors.New("the emperor is stopping")
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the ini takes longer than %s to expand", limit)
	case err != nil:
		return nil, fmt.Errorf("the ini cannot be expanded within the limits: %w %s", err, firstLine(complaints.String()))
	}
	return readAnswer(out.Bytes(), files)
}

// readAnswer takes an expander's answer for what it is: the word of the
// owner, under whose uid the process ran. It is about these files, in this
// order, and otherwise may be anything.
func readAnswer(b []byte, files []iniFile) ([]expansion, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("expander: %w", err)
	}
	if len(raw) != len(files) {
		return nil, fmt.Errorf("expander answered %d of %d files", len(raw), len(files))
	}
	got := make([]expansion, len(files))
	for i, f := range files {
		x := &got[i]
		if len(raw[i]) > expandAnswer {
			x.Errors = ini.Errors{{Message: fmt.Sprintf("its settings are %d bytes; at most %d are taken", len(raw[i]), expandAnswer)}}
		} else if err := json.Unmarshal(raw[i], x); err != nil {
			return nil, fmt.Errorf("expander: %w", err)
		}
		x.Name, x.file = f.name, f
		if c := x.Config; c != nil {
			c.Name, c.File = f.name, f.path
			if !x.Errors.Failed() {
				x.Errors = append(x.Errors, c.Validate()...)
			}
		}
		x.Errors = harmless(x.Errors, f.path)
	}
	return got, nil
}

// harmless are errors that may be printed: bounded, without control
// characters, each with a place.
func harmless(errs ini.Errors, path string) ini.Errors {
	failed := errs.Failed()
	errs = errs[:min(len(errs), expandErrors)]
	for i := range errs {
		e := &errs[i]
		if e.Pos.File == "" {
			e.Pos.File = path
		}
		e.Pos.File = printable([]byte(e.Pos.File[:min(len(e.Pos.File), 4096)]))
		e.Message = printable([]byte(e.Message[:min(len(e.Message), 4096)]))
	}
	if failed && !errs.Failed() { // cut off
		errs = append(errs, ini.Error{Pos: ini.Pos{File: path}, Message: "too many errors"})
	}
	return errs
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// limitedBuffer fails when more is written than left. It has no method of the
// buffer's own: by ReadFrom, io.Copy would go past the limit.
type limitedBuffer struct {
	Buffer *bytes.Buffer
	left   int
	full   bool // something did not fit
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full = true
		return 0, errors.New("too much output")
	}
	b.left -= len(p)
	return b.Buffer.Write(p)
}

// Expander is the expander process. args are the uid and gid to become.
func Expander(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("want UID GID; the emperor starts me")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	// no_new_privs is a thread's own: this one starts the inis' commands.
	runtime.LockOSThread()
	if err := becomeOwner(uid, gid); err != nil {
		return err
	}
	var req expandRequest
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return err
	}
	got := make([]expansion, len(req.Files))
	for i, f := range req.Files {
		got[i] = expandFileOf(f, &req.Common, uint32(uid), uint32(gid))
	}
	return json.NewEncoder(out).Encode(got)
}

// becomeOwner bounds the process and gives up every right but the owner's.
func becomeOwner(uid, gid int) error {
	debug.SetMemoryLimit(expandMemory / 2)
	limits := map[int]uint64{unix.RLIMIT_DATA: expandMemory, unix.RLIMIT_CORE: 0, unix.RLIMIT_CPU: uint64(expandTime / time.Second)}
	for which, n := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if os.Getuid() != 0 || uid == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
}

func expandFileOf(f expandFileRequest, common *Common, uid, gid uint32) expansion {
	return common.read(f, func(st *unix.Stat_t) error {
		switch {
		case f.Skeleton:
			return refuseWriters(st, uid)
		case st.Uid != uid || st.Gid != gid:
			return fmt.Errorf("its owner changed from %d:%d to %d:%d; it will be read again", uid, gid, st.Uid, st.Gid)
		}
		return nil
	})
}

// ReadVassal reads one vassal's ini with the rights of the caller. As under
// uWSGI's emperor, the ini's own folder is where relative names start. check,
// if any, sees the very file that is read. Without errors (warnings aside) the
// Config is good.
func ReadVassal(name, path string, check func(*unix.Stat_t) error) (*vassal.Config, ini.Errors) {
	x := new(Common).read(expandFileRequest{Name: name, Path: path}, check)
	return x.Config, x.Errors
}
