package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// movers are the functions that change the namespace of the calling thread.
var movers = map[string][]string{
	"golang.org/x/sys/unix":          {"Setns", "Unshare"},
	"syscall":                        {"Setns", "Unshare"},
	"github.com/vishvananda/netns":   {"Set", "Setns", "New", "NewNamed"},
	"github.com/vishvananda/netlink": {"NewHandleAt", "NewHandleAtFrom"}, // enters the namespace and unlocks the thread even if it cannot go back
}

// mayMove says where a thread may: in the package that brings it back, and in the
// init stage, a process of its own that never goes back.
func mayMove(pkg, file string) bool {
	return pkg == "internal/netns" ||
		pkg == "vassal" && (strings.HasPrefix(file, "init") || strings.HasPrefix(file, "stage"))
}

func TestThreadsStayInTheirNamespace(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, file := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			if !mayMove(p.name(), file) {
				for _, call := range moves(t, filepath.Join(p.Dir, file)) {
					t.Errorf("%s/%s uses %s: a thread that does not come back serves other goroutines; use internal/netns", p.name(), file, call)
				}
			}
		}
	}
}

// moves lists the uses of movers in a file.
func moves(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	names := map[string][]string{} // by the package's name in this file
	for _, spec := range file.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		name := imported[strings.LastIndex(imported, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if functions, ok := movers[imported]; ok {
			names[name] = functions
		}
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(names[x.Name], sel.Sel.Name) {
			found = append(found, x.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// The search itself: it must see what it is for.
func TestMovesAreSeen(t *testing.T) {
	got := moves(t, "../netns/netns_linux.go")
	for _, want := range []string{"unix.Unshare", "netns.Set"} {
		if !slices.Contains(got, want) {
			t.Errorf("found %q in internal/netns, want %s among them", got, want)
		}
	}
}
