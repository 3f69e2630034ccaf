package emperor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"fiefdom/internal/ini"
)

// distrust says why in tyrant mode an ini is not its owner's word: somebody
// else could have put it where it is. Empty means that it is.
func (f iniFile) distrust(link, target fs.FileInfo) string {
	folder, err := os.Stat(filepath.Dir(f.path))
	if err != nil {
		return err.Error()
	}
	const byGroup, byOthers = 0o020, 0o002
	who, mode := ownerOf(folder), folder.Mode()
	switch {
	case who.uid != 0 && who.uid != f.owner.uid:
		return fmt.Sprintf("its folder belongs to uid %d, who could put anything there in the name of uid %d; in tyrant mode it must be root's or the owner's own", who.uid, f.owner.uid)
	case mode&fs.ModeSticky == 0 && (mode&byOthers != 0 || mode&byGroup != 0 && who.gid != 0 && who.gid != f.owner.gid):
		return fmt.Sprintf("others may write its folder (mode %03o) and could rename what is in it; in tyrant mode it needs chmod go-w, or +t", mode.Perm())
	case f.skeleton:
		return "" // its target is judged when it is read
	case link.Mode()&fs.ModeSymlink != 0 && ownerOf(link).uid != 0 && ownerOf(link).uid != f.owner.uid:
		return fmt.Sprintf("it is a symbolic link of uid %d to a file of uid %d; in tyrant mode only root and the file's owner may link to it (see emperor-tyrant-nofollow)", ownerOf(link).uid, f.owner.uid)
	case target.Sys().(*syscall.Stat_t).Nlink > 1:
		return fmt.Sprintf("it has %d names (hard links), and nobody knows who gave it this one; in tyrant mode it must be a file of its own", target.Sys().(*syscall.Stat_t).Nlink)
	}
	return ""
}

// printableName says whether a name can stand in log lines and tables.
func printableName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// refusedFirst takes the files out that nobody reads, with what to say of them.
func refusedFirst(files []iniFile) (read []iniFile, refused []expansion) {
	for _, f := range files {
		if f.refused == "" {
			read = append(read, f)
			continue
		}
		err := ini.Error{Pos: ini.Pos{File: printable([]byte(f.path))}, Message: f.refused}
		refused = append(refused, expansion{Name: f.name, Errors: ini.Errors{err}, file: f})
	}
	return read, refused
}

// dethrone stops a vassal whose ini is not the same owner's word any more.
// What it is now begins anew when nothing of the old one is left; until then
// only root sees and commands what is left.
func (e *Emperor) dethrone(v *member, f iniFile) {
	if f.refused != "" {
		e.Log.Warn("ini refused; stopping the vassal", "vassal", v.name, "file", f.path, "reason", f.refused)
	} else {
		e.Log.Warn("ini has another owner; stopping the vassal", "vassal", v.name, "file", f.path, "from", v.file.owner.uid, "to", f.owner.uid)
	}
	e.claims.Remove(v.name)
	v.file, v.dethroned = f, true
	e.Journal.own(v.name, 0)
	e.happen(v, gone)
}
