package ini

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Change is one change of an ini's lines. All others stay as they are, byte for
// byte.
type Change struct {
	Line   int             // from 1; 0: the end of the file, which then has one section
	Is     func(Pair) bool // says that it is the line that is meant
	Remove bool            // the line; else Text becomes a line of its own
	Before bool            // Text comes before the line, else after it
	Text   string
}

// Apply makes a change in a file that nobody but its reader's own user and root
// could have changed or moved. The file is replaced as a whole, and keeps its
// owner and its mode. It returns where the new text stands, and what takes the
// change back.
func (c *Change) Apply(path string) (line int, undo func() error, err error) {
	fail := func(err error) (int, func() error, error) { return 0, nil, fmt.Errorf("%s: %w", path, err) }
	if err := onlyOurs(filepath.Dir(path)); err != nil {
		return 0, nil, err
	}
	old, st, err := readLines(path)
	if err != nil {
		return fail(err)
	}
	lines, line, err := c.edit(old)
	if err != nil {
		return fail(err)
	}
	now, err := replace(path, st, lines)
	if err != nil {
		return fail(err)
	}
	return line, func() error {
		_, err := replace(path, now, old)
		return err
	}, nil
}

// maxEdited bounds a file that is changed, in bytes.
const maxEdited = 1 << 20

// readLines reads a file's lines with their ends.
func readLines(path string) ([]string, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, nil, errors.New("it is a symbolic link; change the file that it leads to by hand")
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || sys.Nlink > 1 || st.Size() > maxEdited {
		return nil, nil, errors.New("it is no regular file of one name and less than 1 MiB; change it by hand")
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, nil, err
	}
	lines := strings.SplitAfter(string(b), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines, st, nil
}

// edit makes the change of lines.
func (c *Change) edit(old []string) (lines []string, line int, err error) {
	sections := 0
	for _, text := range old {
		if strings.HasPrefix(strings.TrimSpace(text), "[") {
			sections++
		}
		if p, ok := pairOf(text); ok && opensBlock(p.Key) {
			return nil, 0, fmt.Errorf("it has conditions or loops (%s), in which a line is not always one; change it by hand", p.Key)
		}
	}
	if c.Line == 0 {
		if sections != 1 {
			return nil, 0, fmt.Errorf("it has %d sections, and nothing says where the line belongs; write it by hand: %s", sections, c.Text)
		}
		return insert(old, len(old), c.Text), len(old) + 1, nil
	}
	at := c.Line - 1
	p, ok := Pair{}, false
	if at < len(old) {
		p, ok = pairOf(old[at])
	}
	if !ok || !c.Is(p) {
		return nil, 0, fmt.Errorf("line %d is not what it was when it was read, or is made of placeholders; change it by hand", c.Line)
	}
	switch {
	case c.Remove:
		return slices.Delete(slices.Clone(old), at, at+1), c.Line, nil
	case !c.Before:
		at++
	}
	return insert(old, at, c.Text), at + 1, nil
}

// insert puts a line before the one at i, with the ends that the others have.
func insert(old []string, i int, text string) []string {
	end := "\n"
	if len(old) > 0 && strings.HasSuffix(old[0], "\r\n") {
		end = "\r\n"
	}
	lines := slices.Clone(old)
	if i == len(lines) && i > 0 && !strings.HasSuffix(lines[i-1], "\n") {
		lines[i-1] += end
		return append(lines, text) // the last line has no end, as before
	}
	return slices.Insert(lines, i, text+end)
}

// pairOf is an option that stands on a line as it is: no comment, and not
// continued on the next.
func pairOf(line string) (Pair, bool) {
	text := strings.TrimSpace(line)
	if text == "" || strings.ContainsRune(";#[", rune(text[0])) || strings.HasSuffix(text, `\`) {
		return Pair{}, false
	}
	key, value, ok := strings.Cut(text, "=")
	return Pair{Key: strings.TrimRight(key, blanks), Value: strings.TrimLeft(value, blanks)}, ok
}

// opensBlock says whether an option of the dialect opens or ends a block.
func opensBlock(key string) bool {
	switch words[key].act {
	case actFor, actIf, actIfNot, actEnd:
		return true
	}
	return false
}

// replace puts a file with other lines in the place of one that is still what it
// was.
func replace(path string, st fs.FileInfo, lines []string) (now fs.FileInfo, err error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("its owner is not known")
	}
	// No emperor takes a file of such a name for an ini.
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-")
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.WriteString(strings.Join(lines, ""))
	err = errors.Join(err, tmp.Chown(int(sys.Uid), int(sys.Gid)), tmp.Chmod(st.Mode().Perm()), tmp.Sync())
	if now, serr := tmp.Stat(); err == nil && serr == nil {
		there, lerr := os.Lstat(path)
		if lerr == nil && os.SameFile(there, st) && there.ModTime().Equal(st.ModTime()) && there.Size() == st.Size() {
			err = errors.Join(tmp.Close(), os.Rename(tmp.Name(), path))
			done = err == nil
			return now, err
		}
		err = errors.Join(errors.New("somebody else is changing it; try again"), lerr)
	} else {
		err = errors.Join(err, serr)
	}
	return nil, errors.Join(err, tmp.Close())
}

// onlyOurs refuses a folder that others than root and the caller's own user can
// write to, or could have put in the place where it is.
func onlyOurs(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	whole, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for _, path := range []string{dir, whole} {
		for p := path; ; p = filepath.Dir(p) {
			st, err := os.Lstat(p)
			if err != nil {
				return err
			}
			sys, ok := st.Sys().(*syscall.Stat_t)
			const others = 0o022
			open := st.IsDir() && st.Mode().Perm()&others != 0 && (st.Mode()&fs.ModeSticky == 0 || p == path)
			if !ok || int(sys.Uid) != 0 && int(sys.Uid) != os.Geteuid() || open {
				return fmt.Errorf("%s: others than root can write there, so files are not changed in it; change it by hand", p)
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	return nil
}
