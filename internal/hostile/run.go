package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what became of a row, as the program prints it with -json: a line for each.
type Report struct {
	Name  string `json:"name"`
	Area  string `json:"area"`
	Tries string `json:"tries"`
	Finding
}

// rowTime is how long one attempt may take.
const rowTime = 30 * time.Second

// Main is the program. Its exit code is 0 if all was contained.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("hostile", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print an object of JSON for each row")
	stay := flags.Bool("stay", false, "do not end after the report, as an app does not")
	table := flags.Bool("table", false, "print the rows as a table of Markdown, and try nothing")
	one := flags.String("row", "", "try this row alone, in this process")
	during := flags.Duration("watch", 0, "attack what enters the jail for so long, and try no row")
	told := flags.String("site", "", "what is known of the place: JSON, or @FILE")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "hostile: what is %q? see -help\n", flags.Args())
		return 2
	}
	if *table {
		fmt.Fprint(stdout, Table())
		return 0
	}
	site, err := readSite(*told)
	if err != nil {
		fmt.Fprintf(stderr, "hostile: -site: %v\n", err)
		return 2
	}
	if *one != "" {
		return runOne(*one, site, stdout, stderr)
	}
	if *during > 0 {
		if watch(*during, stdout) != nil {
			return 1
		}
		linger(*stay)
		return 0
	}
	reports := runAll(*told)
	code := 0
	for _, r := range reports {
		if r.Outcome != Contained {
			code = 1
		}
	}
	show := write
	if *asJSON {
		show = writeJSON
	}
	if err := show(stdout, reports); err != nil {
		return 1
	}
	linger(*stay)
	return code
}

func linger(stay bool) {
	for stay {
		time.Sleep(time.Hour)
	}
}

func readSite(told string) (*Site, error) {
	site := &Site{top: os.Getppid()}
	if path, ok := bytes.CutPrefix([]byte(told), []byte("@")); ok {
		text, err := os.ReadFile(string(path))
		if err != nil {
			return nil, err
		}
		told = string(text)
	}
	if told != "" {
		if err := json.Unmarshal([]byte(told), site); err != nil {
			return nil, err
		}
	}
	site.fill()
	return site, nil
}

func runOne(name string, site *Site, stdout, stderr io.Writer) int {
	if name == rightsWord {
		r := ownRights()
		fmt.Fprintln(stdout, r.uid, r.capabilities)
		return 0
	}
	for _, row := range Rows() {
		if row.Name == name {
			_ = json.NewEncoder(stdout).Encode(row.try(site))
			return 0
		}
	}
	fmt.Fprintf(stderr, "hostile: no row %q\n", name)
	return 2
}

// runAll tries each row in a process of its own: what one changes or breaks of
// itself is no other's.
func runAll(told string) []Report {
	var reports []Report
	for _, row := range Rows() {
		reports = append(reports, Report{Name: row.Name, Area: row.Area, Tries: row.Tries, Finding: apart(row.Name, told)})
	}
	return reports
}

// apart is the finding of a row, of a child that tries it.
func apart(name, told string) Finding {
	self, err := os.Executable()
	if err != nil {
		return unclear("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rowTime)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "-row", name, "-site", told)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if f, ok := findingOf(out.Bytes()); ok && err == nil {
		return f
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == unix.SIGSYS {
			return contained("killed by the filter of system calls")
		}
	}
	if ctx.Err() != nil {
		return unclear("no end within %v", rowTime)
	}
	return unclear("%v: %.300s", err, errs.String())
}

// findingOf reads what a child has printed.
func findingOf(out []byte) (f Finding, ok bool) {
	err := json.Unmarshal(out, &f)
	return f, err == nil && f.Outcome != ""
}

func writeJSON(w io.Writer, reports []Report) error {
	for _, r := range reports {
		if err := json.NewEncoder(w).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// write is a line for each, and one for all.
func write(w io.Writer, reports []Report) error {
	var text bytes.Buffer
	count := map[Outcome]int{}
	for _, r := range reports {
		fmt.Fprintf(&text, "%-10s %-20s %s: %s\n", r.Outcome, r.Name, r.Tries, r.Detail)
		count[r.Outcome]++
	}
	fmt.Fprintf(&text, "%d ways out: %d contained, %d escaped, %d unclear\n", len(reports), count[Contained], count[Escaped], count[Unclear])
	_, err := w.Write(text.Bytes())
	return err
}

// Table is the rows as docs/security.md shows them.
func Table() string {
	var text bytes.Buffer
	text.WriteString("| about | way out | what is tried | what stops it |\n|---|---|---|---|\n")
	area := ""
	for _, row := range Rows() {
		shown := row.Area
		if shown == area {
			shown = ""
		}
		area = row.Area
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", shown, row.Name, row.Tries, row.Stops)
	}
	return text.String()
}
