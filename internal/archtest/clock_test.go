package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// wallClock are the functions that compare times which have no monotonic
// reading, and may: a clock that jumps makes nobody start, stop or wait there.
var wallClock = map[string]string{
	"emperor.(LogQuery).choose":      "a reader asks for lines by the clock on the wall",
	"emperor.(LogQuery).reachesBack": "the same",
	"emperor.(*logFiles).older":      "the same, of the files of logto",
	"emperor.(*Emperor).apiEvents":   "a reader asks for events by the clock on the wall",
	"emperor.(*Client).Upgrade":      "asks whether it is another time, not which is later",
	"emperor.untilMinute":            "jobs run by the clock on the wall, and cronClock minds its jumps",
	"logfile.(*File).keepUp":         "a log's age outlives its emperor; a birth to come is taken for now",
	"tuntap.(*dropBook).examples":    "the order of a list for people",
}

// fromNotes are fields of the loop's that the next emperor takes out of a note,
// where times have lost their monotonic reading.
var fromNotes = []string{"dates.", "said.", "cronClock.", "lastEnd.", "member.since", "process.since", "File.born"}

// Nobody decides by the clock on the wall: a time that was written down, or that
// a file has, is compared with nothing. // T45
func TestClocksAreMonotonic(t *testing.T) {
	for _, pkg := range []string{"emperor", "vassal", "tuntap", "tuntap/control", "firewall/nat", "internal/vault", "internal/logfile", "internal/syslog"} {
		for _, c := range wallComparisons(t, "fiefdom/"+pkg) {
			if _, ok := wallClock[c.where]; !ok {
				t.Errorf("%s: %s compares %s, which is a time of the wall clock: take time.Now() of this process, or vassal.Monotonic", c.pos, c.where, c.what)
			}
		}
	}
}

// comparison is a place where a time of the wall clock is compared.
type comparison struct{ pos, where, what string }

// listed is what "go list -export" says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func wallComparisons(t *testing.T, path string) (found []comparison) {
	t.Helper()
	cmd := nettest.GoTool(t.Context(), "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := map[string]string{}
	var self listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if exports[l.ImportPath] = l.Export; l.ImportPath == path {
			self = l
		}
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range self.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(self.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	config := types.Config{Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	pkg, err := config.Check(path, set, files, info)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			where := pkg.Name() + "." + nameOf(fn)
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				for _, x := range compared(info, call) {
					if isWall(info, x) {
						found = append(found, comparison{set.Position(call.Pos()).String(), where, types.ExprString(x)})
					}
				}
				return true
			})
		}
	}
	return found
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	return fmt.Sprintf("(%s).%s", types.ExprString(fn.Recv.List[0].Type), fn.Name.Name)
}

func isTime(t types.Type) bool { return t != nil && t.String() == "time.Time" }

// compared are the times that a call compares with others, or with now.
func compared(info *types.Info, call *ast.CallExpr) []ast.Expr {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if f, ok := info.Uses[sel.Sel].(*types.Func); ok && f.Pkg() != nil && f.Pkg().Path() == "time" && slices.Contains([]string{"Since", "Until"}, f.Name()) {
		return call.Args
	}
	if isTime(info.Types[sel.X].Type) && slices.Contains([]string{"After", "Before", "Compare", "Equal", "Sub"}, sel.Sel.Name) {
		return append([]ast.Expr{sel.X}, call.Args...)
	}
	return nil
}

// isWall says whether an expression is a time without a monotonic reading: of
// a file, of a text, of a note.
func isWall(info *types.Info, x ast.Expr) bool {
	switch x := ast.Unparen(x).(type) {
	case *ast.CallExpr:
		if sel, ok := x.Fun.(*ast.SelectorExpr); ok {
			return slices.Contains([]string{"ModTime", "Unix", "UnixMilli", "UnixMicro", "Date", "Parse", "UTC", "Local", "In", "Round", "Truncate", "AddDate"}, sel.Sel.Name) ||
				sel.Sel.Name == "Add" && isWall(info, sel.X)
		}
	case *ast.SelectorExpr:
		s := info.Selections[x]
		if s == nil || s.Kind() != types.FieldVal {
			return false
		}
		owner := s.Recv()
		for i, at := range s.Index() { // down to the struct that has the field itself
			if p, ok := owner.Underlying().(*types.Pointer); ok {
				owner = p.Elem()
			}
			fields, ok := owner.Underlying().(*types.Struct)
			if !ok {
				return false
			}
			if i < len(s.Index())-1 {
				owner = fields.Field(at).Type()
				continue
			}
			if _, written := reflect.StructTag(fields.Tag(at)).Lookup("json"); written {
				return true
			}
		}
		name := types.TypeString(owner, func(*types.Package) string { return "" }) + "."
		return slices.Contains(fromNotes, name) || slices.Contains(fromNotes, name+x.Sel.Name)
	}
	return false
}
