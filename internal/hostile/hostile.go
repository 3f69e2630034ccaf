package hostile

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Row is one way out.
type Row struct {
	Name  string // one word for it
	Area  string // what it is about
	Tries string // what is tried
	Stops string // what of confinement stops it, the first of these that is asked

	try func(*Site) Finding
}

// Outcome is what became of an attempt.
type Outcome string

// The outcomes.
const (
	Contained Outcome = "contained"
	Escaped   Outcome = "escaped"
	Unclear   Outcome = "unclear" // neither can be told, which nobody should take for contained
)

// Finding is an outcome and how it was told.
type Finding struct {
	Outcome Outcome `json:"outcome"`
	Absent  bool    `json:"absent,omitempty"` // this kernel or machine has no such thing, for nobody
	Detail  string  `json:"detail"`
}

// Rows are all ways out, in the order in which they are tried.
func Rows() []Row {
	return slices.Concat(fileRows, rootRows, mountRows, deviceRows, procRows, namespaceRows, processRows,
		rightsRows, keyRows, kernelRows, archRows, cgroupRows, socketRows, doorRows, networkRows)
}

func contained(format string, args ...any) Finding {
	return Finding{Outcome: Contained, Detail: fmt.Sprintf(format, args...)}
}

func escaped(format string, args ...any) Finding {
	return Finding{Outcome: Escaped, Detail: fmt.Sprintf(format, args...)}
}

func unclear(format string, args ...any) Finding {
	return Finding{Outcome: Unclear, Detail: fmt.Sprintf(format, args...)}
}

func absent(format string, args ...any) Finding {
	return Finding{Outcome: Contained, Absent: true, Detail: fmt.Sprintf(format, args...)}
}

// refusals are errors that say who asks may not.
var refusals = []error{unix.EPERM, unix.EACCES, unix.EROFS}

func refused(err error) bool {
	return slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) })
}

// judge is the finding of one system call. Past are the errors that come only to
// those who may: the kernel has looked at what was wrong on purpose.
func judge(err error, past ...error) Finding {
	switch {
	case err == nil:
		return escaped("the kernel does it")
	case refused(err):
		return contained("%v", err)
	case errors.Is(err, unix.ENOSYS):
		return absent("%v", err)
	}
	for _, p := range past {
		if errors.Is(err, p) {
			return escaped("the kernel would do it: only the argument is wrong (%v)", err)
		}
	}
	return unclear("an error that says neither: %v", err)
}

// any of several attempts is an escape: the finding names those that are.
func anyOf[T any](what []T, try func(T) Finding) Finding {
	var open, unclearOnes []string
	var last Finding
	refused, missing := 0, 0
	for _, w := range what {
		switch f := try(w); {
		case f.Outcome == Escaped:
			open = append(open, fmt.Sprintf("%v", w))
		case f.Outcome == Unclear:
			unclearOnes = append(unclearOnes, fmt.Sprintf("%v: %s", w, f.Detail))
		case f.Absent:
			missing++
		default:
			refused++
			last = f
		}
	}
	switch {
	case len(open) > 0:
		return escaped("%d of %d: %s", len(open), len(what), few(open))
	case len(unclearOnes) > 0:
		return unclear("%s", few(unclearOnes))
	case refused == 0:
		return absent("none of %d is here", len(what))
	}
	return contained("%d refused, %d not there (%s)", refused, missing, last.Detail)
}

// few is a list that a line has room for.
func few(names []string) string {
	const most = 12
	text := ""
	for i, n := range names {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(names)-most)
		}
		if i > 0 {
			text += " "
		}
		text += n
	}
	return text
}
