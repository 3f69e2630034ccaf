package hostsfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Path is the host's.
const Path = "/etc/hosts"

// What the lines of a block's begin and end start with; the instance's name follows.
const (
	begin = "# fiefdom begin "
	end   = "# fiefdom end "
)

// Block is the text that Put would write.
func Block(instance, lines string) string {
	return begin + instance + " (kept by fiefdom; fiefdom hosts --remove takes it away)\n" + lines + end + instance + "\n"
}

// Put makes lines the instance's block: in place of the one that is there, else
// at the end.
func Put(path, instance, lines string) error {
	return change(path, func(f *file) {
		block := Block(instance, lines)
		for i, p := range f.parts {
			if p.instance == instance {
				f.parts[i].text, block = block, "" // a second one of it goes
			}
		}
		if block == "" {
			return
		}
		if n := len(f.parts); n > 0 && !strings.HasSuffix(f.parts[n-1].text, "\n") {
			f.parts[n-1].text += "\n"
		}
		f.parts = append(f.parts, part{instance, block})
	})
}

// Remove takes an instance's block away, if it is there.
func Remove(path, instance string) error {
	return change(path, func(f *file) {
		f.parts = slices.DeleteFunc(f.parts, func(p part) bool { return p.instance == instance })
	})
}

// Has says whether an instance has just this block.
func Has(path, instance, lines string) bool {
	text, err := os.ReadFile(path)
	return err == nil && bytes.Contains(text, []byte(Block(instance, lines)))
}

// Instances are those that have a block.
func Instances(path string) ([]string, error) {
	f, err := read(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range f.parts {
		if p.instance != "" && !slices.Contains(names, p.instance) {
			names = append(names, p.instance)
		}
	}
	return names, nil
}

// Others are the file's lines outside of blocks.
func Others(path string) (string, error) {
	f, err := read(path)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range f.parts {
		if p.instance == "" {
			b.WriteString(p.text)
		}
	}
	return b.String(), nil
}

// file is a hosts file in parts.
type file struct{ parts []part }

type part struct {
	instance string // empty: somebody else's lines
	text     string
}

func read(path string) (*file, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, string(text))
}

// parse splits a file. Marks that do not fit together are an error: what is whose
// cannot be told then.
func parse(path, text string) (*file, error) {
	f := &file{}
	var own *part
	n := 0
	for line := range strings.Lines(text) {
		n++
		instance, isBegin := mark(line, begin)
		ended, isEnd := mark(line, end)
		switch {
		case isBegin && own != nil, isEnd && (own == nil || own.instance != ended):
			return nil, fmt.Errorf("%s:%d: the marks of fiefdom's blocks do not fit together; remove the lines that are wrong", path, n)
		case isBegin:
			f.parts = append(f.parts, part{instance: instance})
			own = &f.parts[len(f.parts)-1]
		case own == nil && (len(f.parts) == 0 || f.parts[len(f.parts)-1].instance != ""):
			f.parts = append(f.parts, part{})
		}
		f.parts[len(f.parts)-1].text += line
		if isEnd {
			own = nil
		}
	}
	if own != nil {
		return nil, fmt.Errorf("%s: the block of instance %s has no end; remove it, or write %q behind its last line", path, own.instance, end+own.instance)
	}
	return f, nil
}

func mark(line, prefix string) (instance string, ok bool) {
	rest, ok := strings.CutPrefix(line, prefix)
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return "", false
	}
	return words[0], true
}

// change changes a file. What it is to be is written beside it, by one emperor at
// a time: that file is the lock, too. The hosts file itself cannot be, since
// everybody may open it, and so lock it for ever.
func change(path string, edit func(*file)) (err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	next, err := lock(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".fiefdom"))
	if err != nil {
		return err
	}
	replaced := false
	defer func() {
		if !replaced {
			err = errors.Join(err, os.Remove(next.Name()))
		}
		err = errors.Join(err, next.Close())
	}()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := parse(path, string(text))
	if err != nil {
		return err
	}
	edit(f)
	var now strings.Builder
	for _, p := range f.parts {
		now.WriteString(p.text)
	}
	if now.String() == string(text) {
		return nil
	}
	if err := fill(next, path, now.String()); err != nil {
		return err
	}
	err = os.Rename(next.Name(), path)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w; something is mounted there, as in a container: it cannot be replaced whole", err)
	}
	replaced = err == nil
	return err
}

// lock opens the file that is to be the next one, and waits until it is nobody
// else's. One that was left by somebody who was killed serves as well.
func lock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(ours, there) {
			return f, nil
		}
		_ = f.Close() // it has become the hosts file, or is gone
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// fill makes next what is to take the place of the file at path, with its mode and
// owner.
func fill(next *os.File, path, text string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := next.Truncate(0); err != nil {
		return err
	}
	if _, err := next.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	if err := next.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := next.Chmod(os.FileMode(st.Mode & 0o777)); err != nil { // a change of the owner takes bits away
		return err
	}
	return next.Sync()
}
