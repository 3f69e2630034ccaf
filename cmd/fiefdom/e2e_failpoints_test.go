package main

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// T34: wherever in its work an emperor is killed, the next one goes on with the
// same processes, everything becomes as the inis say, and nothing is left over.
//
// The places are the comments "gofail: var NAME struct{}", each named by what has
// just been done there. A copy of the tree is rewritten by gofail, so the real
// build has nothing of them, and built with a runtime that kills
// (testdata/failpoint). Each point is killed at as often as can be at different
// times: at its first passage in an act, its second, and so on.

// kills is how many there are at each point, FIEFDOM_KILLS if that is set.
func kills(t *testing.T) int {
	n := scaled(1, 25)
	if text := os.Getenv("FIEFDOM_KILLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("FIEFDOM_KILLS: %v", err)
		}
	}
	return n
}

// strike is one kill: at a passage of a point in an act.
type strike struct {
	point string
	act   string
	nth   int
	acts  []string // all that come by there
}

// orElse is the strike, and what to do where nobody comes by that often.
func (k strike) orElse() []strike {
	all := []strike{k}
	for n := k.nth / 2; n > 0; n /= 2 {
		all = append(all, strike{k.point, k.act, n, nil})
	}
	for _, act := range k.acts {
		all = append(all, strike{k.point, act, 1, nil})
	}
	return all
}

func (k strike) String() string { return fmt.Sprintf("%s, passage %d in %q", k.point, k.nth, k.act) }

// pointsToTry are the points to kill at: all in make soak, else a few, others each time;
// those of FIEFDOM_FAILPOINT (NAME,NAME) alone if that is set.
func pointsToTry(t *testing.T, points []string) []string {
	t.Helper()
	if one := os.Getenv("FIEFDOM_FAILPOINT"); one != "" {
		some := strings.Split(one, ",")
		for _, p := range some {
			if !slices.Contains(points, p) {
				t.Fatalf("FIEFDOM_FAILPOINT: there is no %q", p)
			}
		}
		return some
	}
	some := slices.Clone(points)
	rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some[:scaled(10, len(some))]
}

func TestSoakEmperorKilledAtFailpoints(t *testing.T) {
	t.Parallel()
	needLimits(t)
	program, points := buildWithFailpoints(t)
	if len(points) < 40 {
		t.Errorf("there are %d failpoints, want 40 at least", len(points))
	}
	passages := countPassages(t, program)
	var all []strike
	for _, p := range pointsToTry(t, points) {
		strikes := plan(p, passages, kills(t))
		if len(strikes) == 0 {
			t.Errorf("no act comes by failpoint %s", p)
		}
		all = append(all, strikes...)
	}
	// Those of an act one after another: a world is laid out once for many.
	slices.SortStableFunc(all, func(a, b strike) int { return strings.Compare(a.act, b.act) })
	var dead atomic.Int64
	t.Run("kills", func(t *testing.T) {
		const worlds = 3
		for n := range worlds {
			t.Run(fmt.Sprint("world ", n), func(t *testing.T) {
				t.Parallel()
				for i := n; i < len(all); {
					i = besiege(t, program).strikeAll(all, i, worlds, &dead)
				}
			})
		}
	})
	t.Logf("%d failpoints, %d kills", len(points), dead.Load())
	if most := len(all); int(dead.Load()) < scaled(1, most*9/10) {
		t.Errorf("%d kills of %d came about", dead.Load(), most)
	}
}

// strikeAll goes on until something is wrong: what is left of a world then is no
// beginning. It returns who is next.
func (s *siege) strikeAll(all []strike, i, step int, dead *atomic.Int64) int {
	for ; i < len(all); i += step {
		killed := false
		for _, k := range all[i].orElse() { // not every time as many come by
			if killed {
				break
			}
			var why string
			if killed, why = s.strike(k); why != "" {
				s.t.Errorf("%s: %s\n%s", k, why, s.lastLogged())
				_ = s.cmd.Process.Kill()
				<-s.dead
				return i + step
			}
		}
		if killed {
			if n := dead.Add(1); n%100 == 0 {
				s.t.Logf("%d kills of %d", n, len(all))
			}
		} else {
			s.t.Logf("%s: nobody came by", all[i])
		}
	}
	s.leave()
	return i
}

// The points are named once each, and gofail takes the comment lines behind one
// for its code.
func TestFailpointsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range failpoint.FindAllSubmatchIndex(b, -1) {
			name := string(b[m[2]:m[3]])
			next, _, _ := strings.Cut(string(b[m[1]+1:]), "\n")
			if seen[name] || strings.HasPrefix(strings.TrimSpace(next), "//") {
				t.Errorf("%s: failpoint %s: its name is taken, or a comment follows it", path, name)
			}
			seen[name] = true
		}
		return nil
	})
	if err != nil || len(seen) < 40 {
		t.Errorf("%d failpoints, want 40 at least: %v", len(seen), err)
	}
}

// plan is how often a point is killed at, and when: spread over all that came by.
func plan(point string, passages map[string]map[string]int, n int) (all []strike) {
	var acts []string
	for _, act := range slices.Sorted(maps.Keys(passages)) {
		if passages[act][point] > 0 {
			acts = append(acts, act)
		}
	}
	var can []strike
	for _, act := range acts {
		for i := range passages[act][point] {
			can = append(can, strike{point, act, i + 1, acts})
		}
	}
	for i := range n {
		switch {
		case len(can) == 0:
		case len(can) >= n:
			all = append(all, can[i*len(can)/n])
		default:
			all = append(all, can[i%len(can)])
		}
	}
	return all
}

// countPassages goes through every act once, and counts who comes by where.
func countPassages(t *testing.T, program string) map[string]map[string]int {
	s := besiege(t, program)
	defer s.leave()
	passages := map[string]map[string]int{}
	for _, name := range append([]string{"work"}, slices.Sorted(maps.Keys(siegeActs))...) { // the first time is not like others
		s.counts = map[string]int{}
		if _, why := s.strike(strike{act: name}); why != "" {
			t.Fatalf("%s, without a kill: %s\n%s", name, why, s.lastLogged())
		}
		passages[name], s.counts = s.counts, nil
	}
	return passages
}

var failpoint = regexp.MustCompile(`(?m)^\s*// gofail: var (\w+) struct\{\}$`)

// buildWithFailpoints builds the program from a copy of the tree whose failpoints
// are enabled.
func buildWithFailpoints(t *testing.T) (program string, points []string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	dirs := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "docs"}, d.Name()) {
			return filepath.SkipDir
		}
		name, err := filepath.Rel(root, path)
		if err != nil || d.IsDir() || !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range failpoint.FindAllSubmatch(b, -1) {
			points, dirs[filepath.Dir(name)] = append(points, string(m[1])), true
		}
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tree, name), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	run := func(dir, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath") // as nettest.GoTool
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	gofail := filepath.Join(tree, "gofail")
	run(root, "go", "build", "-o", gofail, "go.etcd.io/gofail")
	run(tree, gofail, append([]string{"enable"}, slices.Sorted(maps.Keys(dirs))...)...)
	main, err := filepath.Glob(filepath.Join(tree, "cmd/fiefdom/*.fail.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range main { // gofail takes a folder's name for the package's
		run(tree, "sed", "-i", "s/^package fiefdom$/package main/", path)
	}
	run(tree, "go", "mod", "edit", "-replace", "go.etcd.io/gofail=./cmd/fiefdom/testdata/failpoint")
	program = filepath.Join(tree, "fiefdom")
	run(tree, "go", "build", "-o", program, "./cmd/fiefdom")
	return program, points
}
