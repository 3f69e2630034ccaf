package migrate

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := NewReport([]Finding{
		{File: "b.ini", Line: 7, Option: "uid", Fate: Differs, Text: "so"},
		{File: "b.ini", Line: 8, Option: "gid", Fate: Differs, Text: strings.Repeat("so ", 21) + "on"},
		{File: "b.ini", Line: 9, Option: "gid", Fate: Differs, Text: strings.Repeat("so ", 21) + "on"},
		{File: "a.ini", Line: 2, Option: "x\x1b[2J", Fate: Works},
		{File: "b.ini", Line: 3, Option: "emperr", Fate: Unknown, NeedsHand: true, Text: "what?"},
		{File: "b.ini", Fate: Refused, NeedsHand: true, Text: "nothing to run"},
	})
	var got strings.Builder
	if err := r.Write(&got); err != nil {
		t.Fatal(err)
	}
	want := `b.ini
!    refused  (the file)  nothing to run
! 3  unknown  emperr      what?
  7  differs  uid         so
  8  differs  gid         ` + strings.Repeat("so ", 21) + `on
  9  differs  gid         as above
a.ini
  2  works  x?[2J

6 findings in 2 files: 1 work as they are, 3 work with a difference, 1 refused, 1 unknown.
Marked with !: 2 to look at before it can move.
`
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	if r.Moves {
		t.Error("it moves, they say")
	}
}

func TestReportOfWhatMoves(t *testing.T) {
	var got strings.Builder
	r := NewReport([]Finding{{File: "a.ini", Line: 2, Option: "uid", Fate: Works}})
	if err := r.Write(&got); err != nil || !r.Moves {
		t.Errorf("moves %v: %v", r.Moves, err)
	}
	if !strings.HasSuffix(got.String(), "1 findings in 1 files: 1 work as they are.\nEverything can move as it is.\n") {
		t.Errorf("got:\n%s", got.String())
	}
	if none := NewReport(nil); none.Findings == nil || !none.Moves {
		t.Errorf("of nothing: %+v", none)
	}
}
