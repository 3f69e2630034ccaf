package ini

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error prints the errors and warnings one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the single errors.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, one := range e {
		errs[i] = one
	}
	return errs
}

// Failed says whether there is an error among them that is no warning.
func (e Errors) Failed() bool {
	for _, one := range e {
		if !one.Warning {
			return true
		}
	}
	return false
}

// reason is an error of the file system without the operation and the path,
// which our messages already name.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// printable is a message with what a hostile file put into it made harmless
// for logs and terminals: control characters are escaped, and it is cut.
func printable(message string) string {
	const long = 1024
	var b strings.Builder
	for i, r := range message {
		switch {
		case i >= long:
			return b.String() + "…"
		case r == utf8.RuneError:
			b.WriteString(`\ufffd`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
