package emperor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// tellPeak has the expander of a test tell its memory's peak. What wait4 says of
// it is at least what its parent had when it was forked (exec_mmap in fs/exec.c).
const tellPeak = "FIEFDOM_TEST_PEAK"

// cost is what the expander takes for one ini, and what it says about it.
func cost(t *testing.T, path string, uid int) (cpu time.Duration, memory int64, x expansion) {
	t.Helper()
	in, err := json.Marshal(expandRequest{Files: []expandFileRequest{{Name: "x", Path: path}}})
	if err != nil {
		t.Fatal(err)
	}
	var out, status bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	id := strconv.Itoa(uid)
	cmd.Args = []string{os.Args[0], ExpanderProcess, id, id}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &status
	cmd.Env = append(CleanEnv("/"), tellPeak+"=1", "GORACE=atexit_sleep_ms=0") // else the race detector waits a second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &status)
	}
	_, peak, _ := strings.Cut(status.String(), "VmHWM:")
	if _, err := fmt.Sscanf(peak, "%d kB", &memory); err != nil {
		t.Fatal(err)
	}
	var all []expansion
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 1 {
		t.Fatal(err, len(all))
	}
	s := cmd.ProcessState
	return s.UserTime() + s.SystemTime(), memory << 10, all[0]
}

// A hostile ini is refused for at most 100 ms of processor time and 50 MB, with
// a reason of some lines. // T28
func TestHostileIniCosts(t *testing.T) {
	nettest.Root(t)
	const head = "[uwsgi]\ncommand = /bin/app\n"
	repeat := func(line string, n int) string { return head + strings.Repeat(line, n) }
	each := func(format string, n int) string {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	bomb := head + "set-placeholder = a0=" + strings.Repeat("x", 32) + "\n"
	for i := range 40 {
		bomb += fmt.Sprintf("set-placeholder = a%d=%%(a%d)%%(a%d)%%(a%d)%%(a%d)\n", i+1, i, i, i, i)
	}
	dir := sharedDir(t)
	for name, tt := range map[string]struct {
		text string
		want string // the error; empty: it may be fine
	}{
		"good":               {head, ""},
		"1 GB":               {"", "it has more than 1048576 bytes"},
		"NUL":                {head + "env = A=\x00\n", "NUL byte"},
		"1 MB line":          {head + "env = A=" + strings.Repeat("x", 1<<20-64) + "\n", "it has more than 262144 bytes"},
		"long line":          {head + "env = A=" + strings.Repeat("x", 200<<10) + "\n", "an option of more than 131072 bytes"},
		"longer by magic":    {head + "env = A=" + strings.Repeat("%p", 100<<10) + "\n", "an option of more than"},
		"10^6 keys":          {repeat("k=\n", 1_000_000), "it has more than 1048576 bytes"},
		"many keys":          {repeat("a\n", 100_000), "more than 3000 options or other lines"},
		"many comments":      {repeat("#\n", 100_000), "more than 3000 options or other lines"},
		"many sections":      {repeat("[a]\n", 60_000), "more than 3000 options or other lines"},
		"bomb":               {bomb + "env = A=%(a40)\n", "grows beyond"},
		"quiet bomb":         {head + "a = " + strings.Repeat("x", 1000) + "\n" + strings.Repeat("b = "+strings.Repeat("%(a)", 60)+"\n", 600), "grows beyond"},
		"itself":             {head + "a = %(a)x%(a)\n", "grows beyond"},
		"its own include":    {head + "include = x.ini\ninclude = x.ini\n", "include each other"},
		"long loop":          {head + "for-times = 1000000\nx = %(_)\nendfor =\n", "more than 3000 options"},
		"loops":              {repeat("for-times = 2900\nx = %(_)\nendfor =\n", 900), "more than 3000 options"},
		"declared by itself": {head + "declare-option = z=z=$1 $1;z=$1 $1\nz = a b\n", "use each other"},
		"many commands":      {repeat("command = /bin/app a b c\n", 2900), ""},
		"many devices":       {each("tuntap-device = a%d /x\n", 2900), "at most"},
		"many rules":         {head + "tuntap-device = a0 /x\n" + strings.Repeat("tuntap-device-rule = in 1.2.3.4 5.6.7.8 allow\n", 2900), ""},
		"many slips":         {each("comand%d = 1\n", 2900), ""},
		"many hooks":         {repeat("hook-as-root = exec:true\n", 2900), "at most"},
		"many users":         {repeat("uid = nosuchuser\n", 2900), "no user"},
		"many groups":        {repeat("add-gid = nosuchgroup\n", 2900), "no group"},
		"many quotes":        {repeat("a = \"\n", 2900), ""},
		"expression":         {head + "if-hostname-match = (a+)+(b|a)+$\n" + strings.Repeat("x = 1\n", 2900) + "endif =\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "x.ini")
			write(t, path, tt.text)
			if name == "1 GB" {
				if err := os.Truncate(path, 1<<30); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(path, 61200, 61200); err != nil {
				t.Fatal(err)
			}
			cpu, memory, x := cost(t, path, 61200)
			got, err := readAnswerOf(x)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (!got.Errors.Failed() || !strings.Contains(got.Errors.Error(), tt.want)) {
				t.Errorf("%.300v, want %q", got.Errors, tt.want)
			}
			if nettest.Raced() {
				return
			}
			for range 4 { // others' work makes ours longer: the least is what it costs
				if cpu <= 100*time.Millisecond {
					break
				}
				again, _, _ := cost(t, path, 61200)
				cpu = min(cpu, again)
			}
			if cpu > 100*time.Millisecond || memory > 50<<20 {
				t.Errorf("it costs %v and %d MB", cpu, memory>>20)
			}
		})
	}
}

// readAnswerOf is what the emperor makes of an expansion.
func readAnswerOf(x expansion) (expansion, error) {
	b, err := json.Marshal([]expansion{x})
	if err != nil {
		return x, err
	}
	got, err := readAnswer(b, []iniFile{{name: "x", path: "/etc/x.ini"}})
	if err != nil {
		return x, err
	}
	return got[0], nil
}

// What is no file is no ini, and nobody waits for it. In tyrant mode neither is
// a file that somebody else could have put there. // T28
func TestHostileFiles(t *testing.T) {
	nettest.Root(t)
	dir, outside := sharedDir(t), sharedDir(t)
	const owner = 61200
	in := func(name string) string { return filepath.Join(dir, name+".ini") }
	text := "[uwsgi]\ncommand = /bin/app\n"
	write(t, filepath.Join(outside, "roots"), text)
	write(t, filepath.Join(outside, "his"), text)
	write(t, in("good"), text)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	if err := errors.Join(
		os.Chown(filepath.Join(outside, "his"), owner, owner), os.Chown(in("good"), owner, owner),
		os.Link(filepath.Join(outside, "roots"), in("hardroot")), os.Link(filepath.Join(outside, "his"), in("hardhis")),
		unix.Mkfifo(in("fifo"), 0o666), unix.Bind(socket, &unix.SockaddrUnix{Name: in("socket")}),
		unix.Mknod(in("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), os.Mkdir(in("dir"), 0o777),
		os.Symlink("/dev/zero", in("zero")), os.Symlink(in("loop"), in("loop")),
	); err != nil {
		t.Fatal(err)
	}
	write(t, in("a\nb"), text)
	write(t, in("a\x1b[2Jb"), text)
	write(t, in("a\xffb"), text)
	c := &Config{Monitors: []Monitor{{Dir: dir}}, Tyrant: true}
	s := c.scan(nil)
	all := errors.Join(s.errs...).Error()
	for _, want := range []string{
		"fifo.ini is not a regular file", "socket.ini is not a regular file", "device.ini is not a regular file", "dir.ini is not a regular file",
		"zero.ini is not a regular file", "loop.ini: too many levels", `a\x0ab.ini has a name that cannot be printed`, `a\x1b[2Jb.ini has`, `a\xffb.ini has`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q: %s", want, all)
		}
	}
	e := testEmperor(t)
	e.Config = c
	for name, want := range map[string]string{"good": "", "hardroot": "it has 2 names (hard links)", "hardhis": "it has 2 names (hard links)"} {
		f := s.found[name]
		e.newMember(f)
		x := new(expanders).expandAll(t.Context(), f.owner, []iniFile{f})[0]
		x.Errors = append(x.Errors, e.claim(e.vassals[name], &x)...)
		if want == "" && x.Errors.Failed() || want != "" && !strings.Contains(x.Errors.Error(), want) {
			t.Errorf("%s: %v, want %q", name, x.Errors, want)
		}
	}
	if len(s.found) != 3 {
		t.Errorf("found %q", s.order)
	}
}

// Whose folder, whose link, whose file: who could have put an ini where it is. // T29
func TestTyrantDistrusts(t *testing.T) {
	nettest.Root(t)
	const owner, other = 61200, 61201
	for _, tt := range []struct {
		name            string
		uid, gid        int // of the ini
		folderUID, fGID int
		mode            os.FileMode // of the folder
		want            string
	}{
		{"root's folder", owner, owner, 0, 0, 0o755, ""},
		{"his own folder", owner, owner, owner, owner, 0o755, ""},
		{"his own group's folder", owner, owner, owner, owner, 0o775, ""},
		{"everybody's, sticky", owner, owner, 0, 0, 0o777 | os.ModeSticky, ""},
		{"everybody's", owner, owner, 0, 0, 0o777, "others may write its folder"},
		{"a group's", owner, owner, 0, other, 0o775, "others may write its folder"},
		{"his own, everybody's too", owner, owner, owner, owner, 0o777, "others may write its folder"},
		{"another's folder", owner, owner, other, other, 0o755, "its folder belongs to uid 61201"},
		{"root's uid", 0, owner, 0, 0, 0o755, "(root)"},
		{"root's gid", owner, 0, 0, 0, 0o755, "(root)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(sharedDir(t), "v")
			path := filepath.Join(dir, "blog.ini")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, "[uwsgi]\ncommand = /bin/app\n")
			if err := errors.Join(os.Chown(path, tt.uid, tt.gid), os.Chown(dir, tt.folderUID, tt.fGID), os.Chmod(dir, tt.mode)); err != nil {
				t.Fatal(err)
			}
			e := testEmperor(t)
			e.Config = &Config{Monitors: []Monitor{{Dir: dir}}, Tyrant: true}
			f := e.Config.scan(nil).found["blog"]
			e.newMember(f)
			x := new(expanders).expandAll(t.Context(), f.owner, []iniFile{f})[0]
			x.Errors = append(x.Errors, e.claim(e.vassals["blog"], &x)...)
			if tt.want == "" && x.Errors.Failed() || tt.want != "" && !strings.Contains(x.Errors.Error(), tt.want) {
				t.Errorf("%v, want %q", x.Errors, tt.want)
			}
		})
	}
}
