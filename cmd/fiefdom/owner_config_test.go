package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// With --config, too, what a tenant's ini runs and reads is with his own rights;
// and no tenant's file is taken for an emperor's.
func TestConfigReadsInisAsTheirOwners(t *testing.T) {
	nettest.Root(t)
	const tenant = 12345
	dir := layFiles(t, map[string]string{
		"emperor.ini":   "[uwsgi]\nemperor = DIR/vassals\nvassal-set = who=%%n\n",
		"tenants.ini":   "[uwsgi]\nemperor = DIR/vassals\nvassal-set = who=@(exec://touch DIR/pwned)\n",
		"secret":        "hidden",
		"vassals/a.ini": "[uwsgi]\nenv = WHO=@(exec://id -u) %(who)\ncommand = /bin/true\n",
		"vassals/b.ini": "[uwsgi]\nenv = WHAT=@(DIR/secret)\ncommand = /bin/true\n",
	})
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Chmod(path("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tenants.ini", "vassals/a.ini", "vassals/b.ini"} {
		if err := os.Chown(path(name), tenant, tenant); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("FIEFDOM_TEST_SECRET", "hidden")
	out, err := asFiefdom("show", "--config", path("emperor.ini"), path("vassals/a.ini"))
	if err != nil || !strings.Contains(out, "env = WHO=12345 a\n") {
		t.Errorf("show: %v\n%s", err, out)
	}
	for _, word := range []string{"show", "check"} {
		out, err := asFiefdom(word, "--config", path("emperor.ini"), path("vassals/b.ini"))
		if err == nil || strings.Contains(out, "hidden") || !strings.Contains(out, "permission denied") {
			t.Errorf("%s: %v\n%s", word, err, out)
		}
		out, err = asFiefdom(word, "--config", path("tenants.ini"), path("vassals/a.ini"))
		if err == nil || !strings.Contains(out, "belongs to uid 12345") {
			t.Errorf("%s with a tenant's emperor: %v\n%s", word, err, out)
		}
		if _, err := os.Stat(path("pwned")); err == nil {
			t.Errorf("%s ran a tenant's command", word)
		}
	}
}
