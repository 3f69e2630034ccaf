package emperor

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Of vassals whose names differ in capitals only the first has the name in DNS, and
// keeps it, also under the next emperor, until it is gone.
func TestWhoHasAName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.json")
	var log bytes.Buffer
	next := func() *Emperor {
		leases, err := LoadLeases(path)
		if err != nil {
			t.Fatal(err)
		}
		return &Emperor{Leases: leases, Log: slog.New(slog.NewTextHandler(&log, nil))}
	}
	e := next()
	has := func(whole bool, names ...string) (holders []string) {
		var all []Named
		slices.Sort(names)
		for _, n := range names {
			all = append(all, Named{Name: n})
		}
		e.judgeNames(all, whole)
		for _, n := range all {
			if !n.Nameless {
				holders = append(holders, n.Name)
			}
		}
		return holders
	}
	want := func(when string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v have their names, want %v", when, got, want)
		}
	}
	want("alone", has(true, "Blog", "shop"), "Blog", "shop")
	want("a second one comes", has(true, "Blog", "blog", "shop"), "Blog", "shop")
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "vassal=blog name=blog holder=Blog") {
		t.Errorf("the log says %q", got)
	}
	has(true, "Blog", "blog", "shop")
	if got := log.String(); strings.Count(got, "\n") != 1 {
		t.Errorf("it is said again: %q", got)
	}
	e = next()
	want("the next emperor has not read all", has(false, "blog"))
	want("the next emperor", has(true, "Blog", "blog"), "Blog")
	want("the first is gone", has(true, "blog"), "blog")
	want("it comes again", has(true, "Blog", "blog"), "blog")
	want("nobody is left", has(true))
	e = next()
	want("nobody had it", has(true, "BLOG", "Blog", "blog"), "blog")
}
