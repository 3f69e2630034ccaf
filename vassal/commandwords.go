package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"fiefdom/internal/ini"
)

// What a command means that was written as for a shell: nobody runs one.

var (
	shells     = []string{"sh", "bash", "dash", "zsh", "ash", "busybox"}
	shellWords = []string{"&&", "||", "|", ">", ">>", "<", "2>&1", "&"}
	builtins   = []string{"cd", "exec", "export", "source", ".", "ulimit", "umask", "set", "if", "while", "for"}
	variable   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\$(\w+|\{\w+\})$`) })
)

// warnOfShell warns of words that only a shell would take for more than text.
func (c *Config) warnOfShell(pairs []ini.Pair) ini.Errors {
	if len(c.Command) == 0 || slices.Contains(shells, filepath.Base(c.Command[0])) {
		return nil
	}
	at := slices.IndexFunc(c.Command, func(word string) bool {
		return slices.Contains(shellWords, word) || variable().MatchString(word)
	})
	if at < 0 {
		return nil
	}
	e := ini.Error{Pos: ini.Pos{File: c.File}, Warning: true, Message: fmt.Sprintf(
		"%q is an argument like others: no shell runs the command; for one write command = sh -c '…'", c.Command[at])}
	for _, p := range pairs {
		if p.Key == "command" || strings.HasSuffix(p.Key, "-binary-patch-arg") {
			e.Pos = p.Pos
		}
	}
	return ini.Errors{e}
}

// noProgram says why a program is not to be found, and what may be meant. It is
// asked under the app's user.
func noProgram(program string, err error) error {
	err = errors.Unwrap(err)
	hint := ""
	switch {
	case errors.Is(err, fs.ErrPermission):
		return mayNot(fmt.Errorf("command %q: %w", program, err))
	case strings.Contains(program, "/"):
	case slices.Contains(builtins, program):
		hint = "; that is a word of the shell's: write command = sh -c '…'"
	case strings.Contains(program, " "):
		hint = "; without the quotes, what is behind the blank would be arguments"
	default:
		hint = "; install it, or write its whole path"
	}
	return fmt.Errorf("command %q: %w%s", program, err, hint)
}

// mayNot tells of an error under which user it came, if that may be the cause.
func mayNot(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if _, way := errors.AsType[*fs.PathError](err); way {
		return mayNotEnter(err, os.Geteuid())
	}
	return fmt.Errorf("%w; uid %d, the app's, may not run it (is it executable? chmod +x)", err, os.Geteuid())
}

func mayNotEnter(err error, uid int) error {
	return fmt.Errorf("%w; uid %d, the app's, may not enter a folder on the way there (see uid, or chmod)", err, uid)
}
