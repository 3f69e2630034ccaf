package ini

import (
	"bytes"
	"errors"
	"strings"
)

// The schemes that uWSGI knows. We do not have those that call functions of its
// plugins (call, callint, sym) or read its emperor's pipe.
var schemes = []string{"call", "callint", "data", "emperor", "exec", "fd", "http", "section", "sym"}

// scheme is "exec" of "exec://…"; "" of a file's name.
func scheme(name string) string {
	for _, s := range schemes {
		if strings.HasPrefix(name, s+"://") {
			return s
		}
	}
	return ""
}

// read gets what a name of the ini means: a file, a command's output, stdin.
func (l *loader) read(name string) ([]byte, error) {
	return l.account(func() ([]byte, error) { return l.readScheme(name) })
}

// readFile is read for a name that is always a file's.
func (l *loader) readFile(name string) ([]byte, error) {
	return l.account(func() ([]byte, error) { return l.ReadFile(l.path(name)) })
}

// account keeps what is read within the limits. Beyond them the load ends.
func (l *loader) account(read func() ([]byte, error)) ([]byte, error) {
	if l.sources++; l.sources > l.Limits.Sources {
		l.stop(l.at, "more than %d files and commands are read", l.Limits.Sources)
		return nil, errStopped
	}
	data, err := read()
	if err == nil && !l.spend(l.at, len(data)) {
		err = errStopped
	}
	return data, err
}

// errStopped is for whoever waits for data; the reason is reported already.
var errStopped = errors.New("a limit is reached")

func (l *loader) readScheme(name string) ([]byte, error) {
	if name == "-" {
		if l.Stdin == nil {
			return nil, errors.New("standard input cannot be read here")
		}
		return readAll(l.Stdin)
	}
	s := scheme(name)
	rest := strings.TrimPrefix(name, s+"://")
	switch {
	case s == "":
		return l.ReadFile(l.path(name))
	case s == "exec":
		out, err := l.Exec(rest)
		if isExit(err) {
			l.warn(l.at, "%s: the command failed (%v); what it wrote is used, as in uWSGI", name, err)
			err = nil
		}
		return out, err
	case s == "fd" && l.FD != nil:
		return l.FD(int(atoi(rest)))
	case s == "http" && l.HTTP != nil:
		return l.HTTP(name)
	case s == "fd", s == "http":
		return nil, errors.New(s + ":// is not read for this file; use a file or exec://")
	case s == "section":
		return elfSection(l.Binary, rest)
	case s == "data":
		return blob(l.Binary, atoi(rest))
	}
	return nil, errors.New(s + ":// is not supported; use a file or exec://")
}

// content is what @(name) stands for: the text up to a NUL byte, without one
// line break at its end.
func (l *loader) content(name string) (string, error) {
	data, err := l.read(name)
	if err != nil {
		return "", err
	}
	data, _, _ = bytes.Cut(data, []byte{0})
	if n := len(data); n > 0 && (data[n-1] == '\n' || data[n-1] == '\r') {
		data = data[:n-1]
	}
	return string(data), nil
}
