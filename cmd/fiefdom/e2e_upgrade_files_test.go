package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

const openDir = "/run/t/open"

// opened are lines of an emperor's ini that name files of that folder.
func opened(files map[string]string) string {
	var b strings.Builder
	for _, option := range slices.Sorted(maps.Keys(files)) {
		b.WriteString(option + " = " + openDir + "/" + files[option] + "\n")
	}
	return b.String()
}

// What an emperor made where his ini said so does not stay when the next one's
// names it no more, or for something else.
func TestUpgradeLeavesNoFilesOfTheFormerIni(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "")
	if err := os.Mkdir(r.Path(openDir), 0o755); err != nil {
		t.Fatal(err)
	}
	named := func(files map[string]string) { r.write(realmDir+"/emperor.ini", nativeNetwork+opened(files)) }
	upgrade := map[string]func(){
		"upgrade": func() { r.mustRun("upgrade") },
		"HUP": func() {
			before, err := r.api.Self(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r.signal(r.cmdPID(), syscall.SIGHUP)
			nettest.Eventually(t, patience, "the next emperor", func() bool {
				now, err := r.api.Self(t.Context())
				return err == nil && !now.Began.Equal(before.Began)
			})
		},
	}
	there := func(when string, want ...string) {
		t.Helper()
		var names []string
		entries, err := os.ReadDir(r.Path(openDir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if slices.Sort(want); !slices.Equal(names, want) {
			t.Errorf("%s there are %q, want %q", when, names, want)
		}
	}
	first := map[string]string{"emperor-web": "web", "emperor-stats": "stats", "metrics": "metrics", "emperor-pidfile": "pid"}
	named(first)
	r.start()
	there("at the start", "web", "stats", "metrics", "pid")
	for _, next := range []struct {
		by    string
		files map[string]string
		also  []string // that are there, and not his
	}{
		{"upgrade", map[string]string{"emperor-web": "web2", "emperor-stats": "stats", "metrics": "metrics2", "emperor-pidfile": "pid2"}, nil},
		{"HUP", map[string]string{"emperor-web": "pid2", "emperor-stats": "web2", "metrics": "stats", "emperor-pidfile": "metrics2"}, nil}, // each is another's
		{"upgrade", first, nil},
		{"HUP", map[string]string{"emperor-stats": "theirs"}, []string{"theirs"}},
		{"HUP", nil, []string{"theirs"}},
		{"upgrade", map[string]string{"metrics": "metrics", "emperor-pidfile": "pid"}, []string{"theirs"}},
	} {
		for _, name := range next.also {
			r.write(openDir+"/"+name, "somebody's")
		}
		named(next.files)
		upgrade[next.by]()
		all := map[string]bool{}
		for _, name := range append(slices.Collect(maps.Values(next.files)), next.also...) {
			all[name] = true
		}
		there("after "+next.by+" to\n"+opened(next.files), slices.Collect(maps.Keys(all))...)
	}
	if out, code := r.run("upgrade"); code != exitOK {
		t.Errorf("with the same ini: exit code %d\n%s", code, out)
	}
	there("with the same ini", "metrics", "pid", "theirs")
	if _, _, err := r.scrape(openDir + "/metrics"); err != nil {
		t.Error(err)
	}
	// An upgrade that does not come takes nothing.
	r.write(realmDir+"/emperor.ini", nativeNetwork+"instance = other\n")
	if _, code := r.run("upgrade"); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	there("after an upgrade that was refused", "metrics", "pid", "theirs")
	r.stop(syscall.SIGTERM)
	there("after the end", "theirs")
}
