package hostile

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJudge(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		past   []error
		want   Outcome
		absent bool
	}{
		"done":                       {nil, nil, Escaped, false},
		"may not":                    {unix.EPERM, nil, Contained, false},
		"read-only":                  {unix.EROFS, []error{unix.EINVAL}, Contained, false},
		"no such call":               {unix.ENOSYS, nil, Contained, true},
		"past the question who asks": {unix.EINVAL, []error{unix.EBADF, unix.EINVAL}, Escaped, false},
		"nobody knows":               {unix.EINVAL, []error{unix.EBADF}, Unclear, false},
	} {
		if f := judge(tt.err, tt.past...); f.Outcome != tt.want || f.Absent != tt.absent {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// One open door among many is an escape; one that says nothing is not contained.
func TestAnyOf(t *testing.T) {
	say := map[string]Finding{"open": escaped(""), "shut": contained(""), "none": absent(""), "odd": unclear("")}
	for list, want := range map[string]Outcome{"shut none": Contained, "shut open odd": Escaped, "shut odd": Unclear, "none none": Contained} {
		f := anyOf(strings.Fields(list), func(w string) Finding { return say[w] })
		if f.Outcome != want || f.Absent != (list == "none none") {
			t.Errorf("%s: %+v", list, f)
		}
	}
}

func TestRowsAreTold(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Rows() {
		if row.Name == rightsWord || seen[row.Name] || strings.ContainsAny(row.Name, " |\"") {
			t.Errorf("the name %q is no row's, or another's too", row.Name)
		}
		seen[row.Name] = true
		for _, text := range []string{row.Area, row.Tries, row.Stops} {
			if text == "" || strings.ContainsAny(text, "|\n") {
				t.Errorf("%s: %q is no cell of a table", row.Name, text)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{"-row nothing": 2, "-site {": 2, "-site @/nonexistent": 2, "word": 2, "-table": 0} {
		var out, errs bytes.Buffer
		if code := Main(strings.Fields(args), &out, &errs); code != want || (code == 0) != (errs.Len() == 0) {
			t.Errorf("%s: exit code %d, want %d\n%s", args, code, want, errs.String())
		}
	}
}

// A row that breaks its process, or prints nothing, is not taken for contained.
func TestBrokenRow(t *testing.T) {
	if f := apart("no-such-row", ""); f.Outcome != Unclear {
		t.Errorf("%+v", f)
	}
	if err := write(failing{}, nil); err == nil {
		t.Error("a report that cannot be written is no report")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }
