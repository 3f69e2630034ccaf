package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"fiefdom/internal/ini"
)

// Looking is how an emperor looks at the inis that its monitors find.
type Looking struct {
	Extensions     []string // of inis, beside .ini
	NoFollow       bool     // a link is changed when the link itself is, not its target
	TyrantNoFollow bool     // a link stands for its own owner, not for that of its target
}

// lookingOptions are the options that fill Looking.
var lookingOptions = []ini.Option[Config]{
	{
		Name: "emperor-extra-extension", Aliases: []string{"emperor-extra-ext"}, Kind: ini.Text, Since: "0.1", Repeats: true, Set: addExtension,
		Meaning: "the end of file names that are vassals' inis too, such as .conf; the vassal's name is what is before it",
	},
	{
		Name: "emperor-nofollow", Kind: ini.Bool, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { c.NoFollow = ini.ParseBool(p.Value); return nil },
		Meaning: "an ini that is a symbolic link has changed when the link itself has (touch -h), whatever happens to its target",
	},
	{
		Name: "emperor-tyrant-nofollow", Kind: ini.Bool, Since: "0.1",
		Set:     func(c *Config, p ini.Pair) error { c.TyrantNoFollow = ini.ParseBool(p.Value); return nil },
		Meaning: "in tyrant mode a symbolic link stands for its own owner (chown -h); its target is his or root's",
	},
}

func addExtension(c *Config, p ini.Pair) error {
	if p.Value == "" || strings.Contains(p.Value, "/") {
		return fmt.Errorf("%s = %s: want the end of file names, such as .conf", p.Key, p.Value)
	}
	c.Extensions = append(c.Extensions, p.Value)
	return nil
}

// extension is the end of an ini's name; false if the file is none.
func (l *Looking) extension(name string) (string, bool) {
	for _, ext := range append([]string{iniSuffix}, l.Extensions...) {
		if strings.HasSuffix(name, ext) && name != ext {
			return ext, true
		}
	}
	return "", false
}

// maxName bounds the names of inis in bytes, as uWSGI does.
const maxName = 254

func (l *Looking) isIni(path string) bool {
	name := filepath.Base(path)
	_, ok := l.extension(name)
	return ok && len(name) <= maxName
}

// NameOf is the vassal's name that a file gives without further options.
func NameOf(path string) string { return new(Looking).nameOf(path, "") }

// nameOf is the vassal's name that a file gives.
func (l *Looking) nameOf(path, section string) string {
	name := filepath.Base(path)
	ext, _ := l.extension(name)
	name = strings.TrimSuffix(name, ext)
	if section != "" {
		name += ":" + section
	}
	return name
}

var (
	errNotRegular = errors.New("not a regular file")
	errDangling   = errors.New("is not there")
	errName       = errors.New("rename it")
)

// look looks at one ini. The link comes first, and what is none is looked at
// once only: who swaps the two meanwhile cannot pass one off as the other.
func (c *Config) look(path, section string) (iniFile, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return iniFile{}, err
	}
	target, linked := link, link.Mode()&fs.ModeSymlink != 0
	if linked {
		target, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if to, linkErr := os.Readlink(path); linkErr == nil {
			return iniFile{}, fmt.Errorf("%s is a link to %s, which %w", printable([]byte(path)), printable([]byte(to)), errDangling)
		}
	}
	if err != nil {
		return iniFile{}, err
	}
	if !target.Mode().IsRegular() {
		return iniFile{}, fmt.Errorf("%s is %w", printable([]byte(path)), errNotRegular)
	}
	if !printableName(filepath.Base(path) + section) {
		return iniFile{}, fmt.Errorf("%s has a name that cannot be printed; %w", printable([]byte(path)), errName)
	}
	f := iniFile{name: c.nameOf(path, section), path: path, section: section, owner: ownerOf(target), id: idOf(target)}
	if linked && c.NoFollow {
		f.id = idOf(link)
	}
	if linked && c.Tyrant && c.TyrantNoFollow {
		f.owner, f.skeleton = ownerOf(link), true
	}
	if c.Tyrant {
		f.refused = f.distrust(link, target)
	}
	return f, nil
}

func ownerOf(info fs.FileInfo) owner {
	st := info.Sys().(*syscall.Stat_t)
	return owner{st.Uid, st.Gid}
}

func idOf(info fs.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{st.Dev, st.Ino, st.Mtim.Nano(), st.Size}
}

// request is what an expander is asked about the file.
func (f iniFile) request() expandFileRequest {
	return expandFileRequest{Name: f.name, Path: f.path, Section: f.section, Skeleton: f.skeleton, Door: f.door, Show: f.show}
}
