package migrate

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"fiefdom/internal/plaintext"
)

// Finding is what was found out about one option of a file, or, without an
// option, about the file.
type Finding struct {
	File      string `json:"file"`
	Line      int    `json:"line,omitempty"`
	Option    string `json:"option,omitempty"`
	Fate      Fate   `json:"fate"`
	Text      string `json:"text,omitempty"`
	NeedsHand bool   `json:"needs_hand"` // before the file can move
}

// Report is all that was found out.
type Report struct {
	Findings []Finding    `json:"findings"`
	Files    int          `json:"files"`   // that were read
	Summary  map[Fate]int `json:"summary"` // findings by fate
	Moves    bool         `json:"moves"`   // nothing needs a hand
}

// NewReport puts findings in order: file by file as they were first met, each
// from its top to its bottom.
func NewReport(found []Finding) Report {
	r := Report{Findings: append([]Finding{}, found...), Summary: map[Fate]int{}, Moves: true}
	order := map[string]int{}
	for _, f := range found {
		if _, ok := order[f.File]; !ok {
			order[f.File] = len(order)
		}
		r.Summary[f.Fate]++
		r.Moves = r.Moves && !f.NeedsHand
	}
	r.Files = len(order)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		return a.Line - b.Line
	})
	return r
}

// Write prints the report for people, a line a finding. What needs a hand is
// marked. A long explanation is given once.
func (r Report) Write(out io.Writer) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	const long = 60
	given := map[string]bool{}
	for i, f := range r.Findings {
		if i == 0 || f.File != r.Findings[i-1].File {
			if err := w.Flush(); err != nil {
				return err
			}
			fmt.Fprintln(w, plaintext.Line(f.File))
		}
		mark, place, option := " ", "", f.Option
		if f.NeedsHand {
			mark = "!"
		}
		if f.Line > 0 {
			place = strconv.Itoa(f.Line)
		}
		if option == "" {
			option = "(the file)"
		}
		words := plaintext.Line(f.Text)
		if given[words] && len(words) > long {
			words = "as above"
		}
		given[words] = true
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\n", mark, place, f.Fate, plaintext.Line(option), words)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, r.summary())
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

var summaryWords = map[Fate]string{
	Works: "work as they are", Differs: "work with a difference", Needless: "needless",
	Missing: "not there", Refused: "refused", Unknown: "unknown",
}

func (r Report) summary() string {
	var counts []string
	for _, v := range Fates {
		if n := r.Summary[v]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, summaryWords[v]))
		}
	}
	hands := 0
	for _, f := range r.Findings {
		if f.NeedsHand {
			hands++
		}
	}
	end := "Everything can move as it is."
	if hands > 0 {
		end = fmt.Sprintf("Marked with !: %d to look at before it can move.", hands)
	}
	if len(counts) == 0 {
		return "There is nothing to move."
	}
	return fmt.Sprintf("%d findings in %d files: %s.\n%s", len(r.Findings), r.Files, strings.Join(counts, ", "), end)
}
