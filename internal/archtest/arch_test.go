// Package archtest keeps the arrows of docs/architecture.md: who may import whom,
// who owns which library, and where a thread may change its namespace.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "fiefdom"

// layers are the packages of the program with those of its own layers that each
// may import. What is below internal/ is a tool: any layer may use it, and it
// uses no layer.
var layers = map[string]struct {
	may []string
	why string
}{
	"cmd/fiefdom": {
		[]string{"emperor", "vassal", "tuntap", "tuntap/control", "firewall", "firewall/nat", "examples", "cmd/fiefdom/internal/top", "cmd/fiefdom/internal/web"},
		"it joins all the others with functions",
	},
	"cmd/fiefdom/internal/top": {
		[]string{"emperor"},
		"a screen for what the control API tells",
	},
	"cmd/fiefdom/internal/web": {
		[]string{"emperor", "tuntap", "firewall"},
		"a page for what the emperor, his journal and the router tell by functions",
	},
	"examples": {
		nil,
		"files, so that the binary alone can show them",
	},
	"emperor": {
		[]string{"vassal"},
		"it supervises and knows nothing of packets; what it passes on are vassal's values",
	},
	"vassal": {
		[]string{"tuntap", "firewall"},
		"a jail has a device and rules, and no idea of who supervises it",
	},
	"tuntap": {
		[]string{"firewall"},
		"the packet path asks for verdicts and knows neither jails nor processes",
	},
	"tuntap/control": {
		[]string{"tuntap", "firewall"},
		"it runs the packet path as a process and feeds it",
	},
	"tuntap/tuntest": {
		[]string{"tuntap"},
		"devices and packets for tests",
	},
	"firewall": {
		nil,
		"rules and verdicts are pure",
	},
	"firewall/nat": {
		[]string{"firewall"},
		"the host's netfilter, apart from the packet path",
	},
}

// owners are libraries that one package alone imports.
var owners = []struct{ library, owner, why string }{
	{"gopkg.in/ini.v1", "internal/ini", "the dialect is one package's business"},
	{"github.com/coreos/go-iptables", "firewall/nat", "whoever else runs iptables makes rules that nobody takes away"},
	{"github.com/spf13/cobra", "cmd/fiefdom", "subcommands are wiring"},
	{"github.com/prometheus/client_golang", "cmd/fiefdom", "metrics are read where everything is joined"},
	{"charm.land/bubbletea/v2", "cmd/fiefdom/internal/top", "the rest of the program prints and ends"},
}

// forbidden are packages of the standard library that a package does not import.
var forbidden = []struct {
	from    string
	imports []string
	why     string
}{
	{"tuntap", []string{"os/exec", "net/http"}, "the packet path is fed by strangers: it starts nothing and serves nothing else"},
	{"firewall", []string{"os", "os/exec", "net", "net/http", "sync", "time"}, "a verdict depends on the rules and the packet alone"},
}

// pkg is what of "go list -json" we look at.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Dir = "../.."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read the answer of go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list knows no package")
	}
	return pkgs
}

// ours strips the module from an import path; false if it is somebody else's.
func ours(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

func TestArrows(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := p.name()
		layer, isLayer := layers[name]
		if !isLayer && !strings.HasPrefix(name, "internal/") {
			t.Errorf("package %s is in no layer: put it below internal/, or into the table here and into docs/architecture.md", name)
			continue
		}
		for _, path := range p.Imports {
			imported, own := ours(path)
			if !own {
				continue
			}
			if imported == "internal/nettest" || imported == "tuntap/tuntest" {
				t.Errorf("%s imports %s, which is for tests only", name, imported)
				continue
			}
			if strings.HasPrefix(imported, "internal/") || slices.Contains(layer.may, imported) {
				continue
			}
			if isLayer {
				t.Errorf("%s imports %s, but may only import %q: %s", name, imported, layer.may, layer.why)
			} else {
				t.Errorf("%s imports the layer %s: what is below internal/ is a tool of all layers and uses none", name, imported)
			}
		}
	}
}

// Every entry of the tables must still be about something, or it protects nothing.
func TestTablesAreAlive(t *testing.T) {
	known := map[string]bool{}
	for _, p := range list(t, "./...") {
		known[p.name()] = true
	}
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		if !known[name] {
			t.Errorf("the table names package %s, which is not there", name)
		}
	}
}

func TestFirewallIsPure(t *testing.T) {
	for _, p := range list(t, "-deps", "./firewall") {
		if !p.Standard && p.name() != "firewall" {
			t.Errorf("firewall reaches %s: it has the standard library alone, so that verdicts stay plain functions", p.ImportPath)
		}
	}
}

func TestOwnersOfLibraries(t *testing.T) {
	for _, p := range list(t, "./...") {
		imports := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		for _, o := range owners {
			for _, path := range imports {
				if (path == o.library || strings.HasPrefix(path, o.library+"/")) && p.name() != o.owner {
					t.Errorf("%s imports %s, which belongs to %s: %s", p.name(), path, o.owner, o.why)
				}
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, f := range forbidden {
		for _, path := range list(t, "./"+f.from)[0].Imports {
			if slices.Contains(f.imports, path) {
				t.Errorf("%s imports %s: %s", f.from, path, f.why)
			}
		}
	}
}
