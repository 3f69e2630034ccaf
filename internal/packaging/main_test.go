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

// TestMain makes of the test binary two programs: the tests, and a service
// manager that is as good as systemd for them.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "systemctl" {
		os.Exit(systemctl(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// machine is a world with a Debian that can be installed into: /usr, /etc and
// /var are its own, and nothing of it reaches the machine of the tests.
type machine struct {
	*nettest.World
	t testing.TB
}

const packageFile = "../../bin/fiefdom.deb"

// furnish gives a world its own Debian. /usr is the machine's with a layer above,
// dpkg knows what the machine has; without man-db's trigger, which takes long.
const furnish = `
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr
for dir in /var/cache /var/log /root /srv /usr/local; do mount -t tmpfs -o mode=755 tmpfs $dir; done
mkdir -p /var/cache/apt/archives/partial /var/log/apt /var/lib/apt/lists/partial /usr/local/bin /usr/local/sbin /run/systemd/system
rm -rf /etc/fiefdom /usr/sbin/policy-rc.d
sed -i /^fiefdom:/d /etc/passwd /etc/group /etc/shadow /etc/gshadow
`

// needs skips a test of something that is not made yet, or fails it where all
// have to run.
func needs(t *testing.T, path, how string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		nettest.Lacks(t, "nothing to install: %v; make it first: %s", err, how)
	}
}

// newMachine makes a machine on which nothing of ours is installed. Its package
// is /root/fiefdom.deb.
func newMachine(t *testing.T) *machine {
	t.Helper()
	needs(t, packageFile, "make deb")
	m := &machine{World: nettest.NewWorld(t), t: t}
	m.Run(t, "sh", "-ec", furnish)
	m.Run(t, "touch", "/usr/of-this-world")
	if _, err := os.Stat("/usr/of-this-world"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("/usr of the world is the machine's: %v", err)
	}
	m.Run(t, "rm", "/usr/of-this-world")
	if out, err := exec.Command("cp", "-a", "/var/lib/dpkg", m.Path("/var/lib/dpkg")).CombinedOutput(); err != nil {
		t.Fatalf("copy what dpkg knows: %v\n%s", err, out)
	}
	m.Run(t, "sh", "-ec", "sed -i /man-db/d /var/lib/dpkg/triggers/File")
	m.give(packageFile, "/root/fiefdom.deb")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.Run(t, "mv", "/usr/bin/systemctl", realSystemctl)
	m.give(self, "/usr/bin/systemctl")
	return m
}

// give copies a file into the machine.
func (m *machine) give(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(m.Path(to), b, 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// sh runs a command of a user of the machine.
func (m *machine) sh(command string) (string, error) {
	return m.Try(m.t, "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TZ=UTC",
		"DEBIAN_FRONTEND=noninteractive", "sh", "-c", "cd; "+command)
}

func (m *machine) mustSh(command string) string {
	m.t.Helper()
	out, err := m.sh(command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// files lists what an installation may leave, contents included, but for what
// belongs to dpkg, apt and passwd themselves.
func (m *machine) files() string {
	m.t.Helper()
	list := m.mustSh(`cd /; find etc run root srv var/lib -xdev \( -path var/lib/dpkg -o -path var/lib/apt \) -prune -o -printf '%p %y %m %u:%g %l\n' | sort
cksum /etc/passwd /etc/group /etc/shadow /etc/gshadow; find /mnt/upper ! -type d ! -path '*/__pycache__*'`)
	var kept []string
	for line := range strings.SplitSeq(list, "\n") {
		path, _, _ := strings.Cut(line, " ")
		backup := strings.HasPrefix(path, "etc/") && strings.HasSuffix(path, "-")
		if !backup && path != "etc/.pwd.lock" && path != "run/lock" && !strings.Contains(line, "__pycache__") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
