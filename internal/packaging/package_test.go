package packaging

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// The unit is free of what systemd does not know. (The program need not be
// where the unit says: another one stands there.)
func TestUnit(t *testing.T) {
	nettest.Program(t, "systemd-analyze")
	text, err := os.ReadFile("fiefdom@.service")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(text, more string) string {
		file := filepath.Join(t.TempDir(), "fiefdom@emperor.service")
		if err := errors.Join(os.Mkdir(file+".d", 0o755), os.WriteFile(file+".d/more.conf", []byte(more), 0o644)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/bin/fiefdom", "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := verify(string(text), ""); out != "" {
		t.Errorf("systemd says:\n%s", out)
	}
	if out := verify(strings.Replace(string(text), "WatchdogSec", "WatchdogSex", 1), ""); !strings.Contains(out, "WatchdogSex") {
		t.Errorf("of a word that it does not know, systemd says %q", out)
	}
	more, err := os.ReadFile("subgroup.conf")
	if err != nil {
		t.Fatal(err)
	}
	// systemd 252 does not know the word yet, and says so.
	out := verify(string(text), string(more))
	if lines := strings.Count(out, "\n"); lines > 1 || lines == 1 && !strings.Contains(out, "Unknown key 'DelegateSubgroup' in section [Service], ignoring") {
		t.Errorf("of the drop-in systemd says:\n%s", out)
	}
	for _, line := range []string{"Type=notify", "KillMode=process", "Delegate=yes", "Restart=always", "TasksMax=infinity", "ExecReload=/bin/kill -HUP $MAINPID"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
}

// From a clean machine to an app, an upgrade that nobody notices, a removal that
// keeps what is the operator's, and a purge that keeps nothing.
func TestPackage(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.files()
	const network = "ip -o link; iptables-save | grep -v '^#'; sysctl net.ipv4.ip_forward"
	quiet := m.mustSh(network)
	if out := m.mustSh("dpkg -i fiefdom.deb"); !strings.Contains(out, "  systemctl enable --now fiefdom@emperor\n") {
		t.Errorf("it does not say what comes next:\n%s", out)
	}
	if out, _ := m.sh("systemctl is-active fiefdom@emperor; systemctl is-enabled fiefdom@emperor 2>/dev/null; id -un fiefdom"); out != "inactive\ndisabled\nfiefdom\n" {
		t.Errorf("after the installation: %q", out)
	}
	if now := m.mustSh(network); now != quiet {
		t.Errorf("the installation changed the network to\n%s\nfrom\n%s", now, quiet)
	}
	m.mustSh("systemctl enable --quiet --now fiefdom@emperor")
	for _, file := range []string{
		"/usr/share/man/man1/fiefdom-new.1.gz", "/usr/share/man/man5/fiefdom.ini.5.gz", "/usr/share/bash-completion/completions/fiefdom",
		"/usr/share/zsh/vendor-completions/_fiefdom", "/usr/share/fish/vendor_completions.d/fiefdom.fish", "/usr/share/doc/fiefdom/copyright",
	} {
		if _, err := os.Stat(m.Path(file)); err != nil {
			t.Error(err)
		}
	}
	m.mustSh("fiefdom check /etc/fiefdom/emperor.ini && fiefdom new --wait hello -- python3 -m http.server 8000")
	const pids = "cat /run/manager/fiefdom@emperor; fiefdom status --json hello | grep '\"pid\"'; ps -o pid= -u fiefdom"
	first := m.mustSh(pids)

	// The router has the package's user, and it has the router.
	if n := len(strings.Fields(first)); n < 4 {
		t.Errorf("no router runs under the user fiefdom: %q", first)
	}
	m.mustSh("echo '; mine' >>/etc/fiefdom/emperor.ini; dpkg -i fiefdom.deb")
	if now := m.mustSh(pids); now != first {
		t.Errorf("after an upgrade: %q, before: %q", now, first)
	}
	if text := m.mustSh("cat /etc/fiefdom/emperor.ini"); !strings.HasSuffix(text, "; mine\n") {
		t.Error("the upgrade took the operator's line")
	}
	m.mustSh("systemctl reload fiefdom@emperor")

	m.mustSh("dpkg -r fiefdom")
	if out, err := m.sh("ps -e -o args= | grep -e '[f]iefdom run' -e '[h]ttp.server'"); err == nil {
		t.Errorf("still running after the removal:\n%s", out)
	}
	m.mustSh("test -e /etc/fiefdom/vassals/hello.ini && test -e /etc/fiefdom/emperor.ini && ! test -e /usr/bin/fiefdom")
	m.mustSh("dpkg -i fiefdom.deb && fiefdom status hello")

	m.mustSh("fiefdom hosts --install && grep -q hello.fiefdom.internal /etc/hosts")
	out := m.mustSh("systemctl enable --quiet fiefdom@other; touch \"/etc/fiefdom/vassals/$(printf 'a\\033b')\"; dpkg -P fiefdom; rm -r /run/manager")
	if !strings.Contains(out, "purged, too: /etc/fiefdom/vassals/hello.ini\n") || !strings.Contains(out, "purged, too: /etc/fiefdom/vassals/a?b\n") || strings.Contains(out, "\033") {
		t.Errorf("the purge does not say what it takes, in plain text: %q", out)
	}
	if diff := nettest.Diff(before, m.files()); diff != "" {
		t.Errorf("after the purge:\n%s", diff)
	}
}

// Nobody starts whom the operator has stopped; who was stopped by a removal alone
// does with the next installation.
func TestPackageStartsNobodyWhoWasStopped(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	runs := func(when, want string) {
		t.Helper()
		out, _ := m.sh("for unit in a b c; do systemctl is-active --quiet fiefdom@$unit && echo $unit; done")
		if now := strings.Join(strings.Fields(out), " "); now != want {
			t.Errorf("%s %q run, want %q", when, now, want)
		}
		if out, err := m.sh("cat /var/lib/fiefdom/.stopped"); err == nil && when != "after the removal" {
			t.Errorf("%s there is still a note:\n%s", when, out)
		}
	}
	m.mustSh("dpkg -i fiefdom.deb; for unit in a b c; do printf '[uwsgi]\nemperor = /srv\n' >/etc/fiefdom/$unit.ini; done")
	m.mustSh("systemctl enable --quiet --now fiefdom@a fiefdom@b; systemctl start fiefdom@c")
	runs("once started", "a b c")
	m.mustSh("systemctl stop fiefdom@b; dpkg -i fiefdom.deb")
	runs("after an upgrade", "a c")
	m.mustSh("dpkg -r fiefdom")
	runs("after the removal", "")
	out := m.mustSh("dpkg -i fiefdom.deb 2>&1")
	runs("after the installation that follows", "a")
	if !strings.Contains(out, "fiefdom@c.service is a disabled or a static unit, not starting it") {
		t.Errorf("it does not say who ran and is not started:\n%s", out)
	}

	// A removal that dpkg takes back, one that it begins anew, and one that is followed
	// by an installation where no systemd runs.
	const scripts = "/var/lib/dpkg/info/fiefdom."
	m.mustSh(scripts + "prerm remove; " + scripts + "postinst abort-remove")
	runs("after a removal that was taken back", "a")
	m.mustSh(scripts + "prerm remove; dpkg -r fiefdom; dpkg -i fiefdom.deb")
	runs("after a removal in two goes", "a")
	m.mustSh("dpkg -r fiefdom; rmdir /run/systemd/system; dpkg -i fiefdom.deb; mkdir /run/systemd/system; dpkg -i fiefdom.deb")
	runs("after an installation without systemd, and an upgrade with it", "")
	m.mustSh("systemctl start fiefdom@a; dpkg -r fiefdom; test -e /var/lib/fiefdom/.stopped; dpkg -P fiefdom")
	if out, err := m.sh("ls -A /var/lib/fiefdom"); err == nil {
		t.Errorf("after the purge there is %q", out)
	}
}

// The same without a package, into a tree of somebody's own.
func TestMakeInstall(t *testing.T) {
	needs(t, "../../bin/fiefdom", "make build")
	dir := t.TempDir()
	install := func() {
		t.Helper()
		// Without its prerequisite: other tests may use the binary.
		c := exec.Command("make", "--no-print-directory", "--old-file=build", "-C", "../..", "install", "DESTDIR="+dir, "PREFIX=/opt/fiefdom")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	install()
	unit, err := os.ReadFile(filepath.Join(dir, "opt/fiefdom/lib/systemd/system/fiefdom@.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/opt/fiefdom/bin/fiefdom run /etc/fiefdom/%i.ini") {
		t.Errorf("%v: %s", err, unit)
	}
	mine := filepath.Join(dir, "etc/fiefdom/emperor.ini")
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	install()
	if text, err := os.ReadFile(mine); err != nil || string(text) != "mine" {
		t.Errorf("a second installation wrote over the operator's ini: %q, %v", text, err)
	}
}
