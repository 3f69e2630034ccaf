package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fiefdom/internal/migrate"
	"fiefdom/internal/nettest"
)

// migrateJSON runs fiefdom migrate --json and returns its report and exit code.
func migrateJSON(t *testing.T, paths ...string) (migrate.Report, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"fiefdom", "migrate", "--json"}, paths...)
	cmd.Stderr = os.Stderr
	out, _ := cmd.Output()
	var r migrate.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %v\n%s", paths, err, out)
	}
	return r, cmd.ProcessState.ExitCode()
}

// layFiles writes files below a folder that everybody may enter.
func layFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Root's migrate neither runs what a tenant's ini names nor reads what the
// tenant could not.
func TestRootMigratesInisAsTheirOwners(t *testing.T) {
	nettest.Root(t)
	const tenant = 12345
	dir := layFiles(t, map[string]string{
		"emperor.ini":       "[uwsgi]\nemperor = DIR/vassals\nemperor-tyrant = true\n",
		"secret.ini":        "[uwsgi]\nharakiri = 30\n",
		"vassals/ours.ini":  "[uwsgi]\ncommand = /bin/true\nenv = A=@(exec://touch DIR/vassals/pwned)\nini = exec://touch DIR/vassals/pwned\n",
		"vassals/theft.ini": "[uwsgi]\ncommand = /bin/true\ninclude = DIR/secret.ini\n",
		"vassals/roots.ini": "[uwsgi]\ncommand = /bin/true\nexec-as-root = echo $(id)\n",
	})
	if err := os.Chmod(filepath.Join(dir, "secret.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vassals", "vassals/ours.ini", "vassals/theft.ini"} {
		if err := os.Chown(filepath.Join(dir, name), tenant, tenant); err != nil {
			t.Fatal(err)
		}
	}
	r, code := migrateJSON(t, filepath.Join(dir, "emperor.ini"))
	if code != exitFailed || r.Moves {
		t.Errorf("exit code %d, moves %v", code, r.Moves)
	}
	if _, err := os.Stat(filepath.Join(dir, "vassals/pwned")); err == nil {
		t.Error("a tenant's command ran")
	}
	find := func(file, option string) migrate.Finding {
		t.Helper()
		i := slices.IndexFunc(r.Findings, func(f migrate.Finding) bool {
			return f.File == filepath.Join(dir, file) && f.Option == option
		})
		if i < 0 {
			t.Fatalf("nothing about %s of %s in %+v", option, file, r.Findings)
		}
		return r.Findings[i]
	}
	if f := find("vassals/ours.ini", "env"); !strings.Contains(f.Text, "only when the emperor reads the file") || f.Line != 3 {
		t.Errorf("of a command that is not run: %+v", f)
	}
	if f := find("vassals/theft.ini", "include"); f.Fate != migrate.Refused || !strings.Contains(f.Text, "permission denied") {
		t.Errorf("of an include that the owner cannot read: %+v", f)
	}
	if f := find("vassals/roots.ini", "exec-as-root"); f.Fate != migrate.Refused || !strings.Contains(f.Text, "tyrant") {
		t.Errorf("of a hook under tyrant: %+v", f)
	}
	if f := find("vassals/roots.ini", ""); !strings.Contains(f.Text, "belongs to 0:0") {
		t.Errorf("of root's ini under tyrant: %+v", f)
	}
	for _, f := range r.Findings {
		if f.Option == "harakiri" {
			t.Error("the owner was told of root's file")
		}
	}
}

// A tenant's ini that takes for ever costs its owner's files, nobody else's.
func TestMigrateOutlivesHostileInis(t *testing.T) {
	nettest.Root(t)
	dir := layFiles(t, map[string]string{
		"bomb.ini": "[uwsgi]\na = %(b)%(b)%(b)\nb = %(a)%(a)%(a)\ncommand = /bin/true\n",
		"loop.ini": "[uwsgi]\ninclude = loop.ini\n",
		"fine.ini": "[uwsgi]\ncommand = /bin/true\n",
		"big.ini":  "[uwsgi]\nfor-times = 1000000\nenv = A=%(_)\nendfor =\n",
	})
	if err := os.Chown(filepath.Join(dir, "bomb.ini"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, code := migrateJSON(t, dir)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	hands := map[string]bool{}
	for _, f := range r.Findings {
		hands[filepath.Base(f.File)] = hands[filepath.Base(f.File)] || f.NeedsHand
	}
	if !hands["bomb.ini"] || !hands["loop.ini"] || !hands["big.ini"] || hands["fine.ini"] {
		t.Errorf("to look at: %v", hands)
	}
}

// What check refuses, migrate never calls fit to move.
func TestMigrateAgreesWithCheck(t *testing.T) {
	t.Parallel()
	for _, ini := range []string{
		"command = /bin/true\n",
		"uid = nobody-has-this-name\ncommand = /bin/true\n",
		"command = /bin/true\nlogto = relative\n",
		"command = /bin/true\nreload-mercy = soon\n",
		"tuntap-device = uwsgi0\ntuntap-device-rule = out 1.2.3.4 deny\ncommand = /bin/true\n",
		"psgi = x.psgi\nhook-as-root = explode:now\n",
		"psgi = x.psgi\nmaster = true\nprocesses = 4\n",
		"strict = true\npsgi = x.psgi\nharakiry = 3\n",
		"psgi = x.psgi\nharakiry = 3\n",
		"uid = root\n",
		"yaml = other.yml\ncommand = /bin/true\n",
		"if-env = A\nif-env = B\nendif =\ncommand = /bin/true\n",
		"ini = :other\ncommand = /bin/true\n",
		"include = gone.ini\ncommand = /bin/true\n",
		"emperor = DIR\ntuntap-router = only-one-word\n",
		"emperor = DIR\nemperor-use-clone = net,usr\n",
		"emperor = DIR\nemperor-freq = never\n",
		"emperor = DIR\nemperr-freq = 3\n",
		"emperor = mongodb://x\n",
		"emperor = DIR\nresolve = me=localhost\ntuntap-router = fief0 /tmp/%(me)\n",
		"env = A=@(fd://5)\ncommand = /bin/true\n",
		"env = A=@(sym://x)\ncommand = /bin/true\n",
		"emperor = DIR/none\n",
	} {
		dir := layFiles(t, map[string]string{"e/it.ini": "[uwsgi]\n" + strings.ReplaceAll(ini, "DIR", "DIR/v"), "v/blog.ini": "[uwsgi]\ncommand = /bin/true\n"})
		file := filepath.Join(dir, "e/it.ini")
		out, err := asFiefdom("check", file)
		r, code := migrateJSON(t, file)
		if (code == exitOK) != r.Moves || (code != exitOK) == r.Moves {
			t.Errorf("exit code %d, moves %v of\n%s", code, r.Moves, ini)
		}
		if err != nil && r.Moves {
			t.Errorf("migrate is content with\n%s; check says\n%s", ini, out)
		}
		if err == nil && !r.Moves && !slices.ContainsFunc(r.Findings, func(f migrate.Finding) bool { return f.Fate == migrate.Missing }) {
			t.Errorf("check is content with\n%s; migrate says\n%+v", ini, r.Findings)
		}
	}
}

// uWSGI's own documents' examples move unedited, where DESIGN says so.
func TestMigrateTheDocumentsExamples(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"emperor.ini", "emperor-firewall.ini", "vassals"} {
		r, code := migrateJSON(t, filepath.Join("../../examples/tuntaprouter", file))
		for _, f := range r.Findings {
			switch {
			case f.Fate == migrate.Refused && (f.Option == "uid" || f.Option == "gid" || f.Option == ""):
				// the users, and the folder that its emperor watches, may not be on this machine
			case f.NeedsHand:
				t.Errorf("%s:%d: %+v", f.File, f.Line, f)
			}
		}
		if code != exitOK && len(r.Findings) == 0 {
			t.Errorf("%s: exit code %d", file, code)
		}
	}
}

// Every option of uWSGI that an emperor, its router, its jails and its hooks
// have is in the table, and the table has no others but those of 2.1.
func TestMigrationTableKnowsUWSGI(t *testing.T) {
	text, err := os.ReadFile("../../vassal/uwsgi-options.txt")
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Fields(string(text))
	rows := migrate.Names()
	ours := regexp.MustCompile(`^(early-)?emperor|^vassals?-|^tuntap|^(hook|exec|umount|call)-|^mount-.*(root|jail|emperor|vassal|asap)$|` +
		`^setns|^unshare|^cgroup|^namespace|^ns|^imperial|^refork|^re-fork|^pivot|^wait-|^jailed|attach.*daemon|^(unique-)?cron2?$|^limit-(as|nproc)|^daemonize|^(safe-)?pidfile|binary-pa|^[ug]id$|^cap$|^chroot$`)
	for _, name := range theirs {
		if ours.MatchString(name) && !slices.Contains(rows, name) {
			t.Errorf("the table lacks %s", name)
		}
	}
	newer := regexp.MustCompile(`^emperor-(.*-attr|collect-.*|.*command.*|subreaper|trigger-socket|tyrant-initgroups|use-fork-server)$|^vassal-fork-base$`)
	for _, name := range rows {
		if !slices.Contains(theirs, name) && !newer.MatchString(name) {
			t.Errorf("uWSGI has no %s", name)
		}
	}
}
