package vassal

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// foldersOf makes folders, with a file in each that tells its name.
func foldersOf(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = sharedFolder(t)
	for _, name := range names {
		err := os.MkdirAll(filepath.Join(dir, name), 0o755)
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name, "file"), []byte(name+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// opens listens at a path, for everybody, and is the command that connects there.
func opens(t *testing.T, path string) (connect string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return "python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print(\"let in\")' " + path
}

func linkTo(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// Of what lies at the top of the host's tree beside the system the app finds what its
// ini names, by the links that lead there, and no socket, name or size beside it.
func TestNothingElseOfTheHostIsSeen(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "blog/releases/5", "blog/static", "shop", "database")
	if err := os.Chown(dir+"/blog/releases/5/file", 61200, 61200); err != nil {
		t.Fatal(err)
	}
	linkTo(t, "releases/5", dir+"/blog/current")
	linkTo(t, dir+"/blog", dir+"/link")
	shop, database := opens(t, dir+"/shop/socket"), opens(t, dir+"/database/socket")
	p := confinedPlan(LevelDefault, "")
	p.Confined.Named = []string{dir + "/blog/current/file", dir + "/link/static", dir + "/database/socket", "/var", "/var/lib"}
	tries{
		{"cat " + dir + "/blog/current/file", "blog/releases/5"},
		{"cat " + dir + "/blog/releases/5/file", "blog/releases/5"},
		{"cat " + dir + "/link/static/file", "blog/static"},
		{"readlink " + dir + "/link /var/run", dir + "/blog\n/run"},
		{database, "let in"},
		{shop, "No such file"},
		{"stat " + dir + "/shop/file", "o such file"},
		{"ls /home /srv /var /var/lib", "ermission denied"},
		{"ls -d /home/* /srv/* /mnt/* /media/* 2>/dev/null | grep -v '[*]'", ""},
		{"touch /var/x /srv/x", "ead-only"},
		{"touch /var/tmp/x && echo made", "made"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
	p.Confined.Binds = []Bind{{Source: dir + "/shop", Target: dir + "/shop"}}
	tries{{shop, "let in"}}.try(t, newJail(t, Link{Device: "eth0"}), p)
}

// One file in a folder of many shows that file.
func TestNamedFileOfAFolderOfMany(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "other")
	named := dir + ".conf"
	if err := os.WriteFile(named, []byte("named\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(named) })
	p := confinedPlan(LevelDefault, "")
	p.Confined.Named = []string{named}
	tries{
		{"cat " + named, "named"},
		{opens(t, dir+"/other/socket"), "No such file"},
		{"cat " + dir + "/other/file", "No such file"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
}

// A link leads where it did, also by way of a folder that nobody names.
func TestLinksWithDots(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "app/releases/5", "app/releases/6", "deploy")
	linkTo(t, "releases/5/../6", dir+"/app/one")
	linkTo(t, dir+"/deploy/../app/releases/6", dir+"/app/two")
	for _, name := range []string{"one", "two"} {
		p := confinedPlan(LevelDefault, "")
		p.Chdir = dir + "/app/" + name
		p.Confined.Reads = []string{p.Chdir}
		tries{{"cat file " + p.Chdir + "/file", "app/releases/6\napp/releases/6"}}.try(t, newJail(t, Link{Device: "eth0"}), p)
	}
}

// What the app has made of a place that it writes shows it nothing more when it begins
// anew, and lifts no mask.
func TestOwnLinksShowNothing(t *testing.T) {
	nettest.Root(t)
	for _, uid := range []int{0, 61200} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			dir := foldersOf(t, "app", "app/whole", "other/x", "secret/x")
			if err := os.Chown(dir+"/app", uid, uid); err != nil {
				t.Fatal(err)
			}
			other, secret := opens(t, dir+"/other/x/socket"), opens(t, dir+"/secret/x/socket")
			linkTo(t, dir+"/app", dir+"/link")
			p := confinedPlan(LevelDefault, "")
			p.UID, p.GID = uid, uid
			p.Confined.Hidden, p.Confined.Writable = []string{dir + "/secret/x"}, []string{dir + "/app"}
			j := newJail(t, Link{Device: "eth0"})
			for _, chdir := range []string{dir + "/app/current", dir + "/link/current"} {
				p.Confined.Reads = []string{chdir}
				for target, connect := range map[string]string{dir + "/other/x": other, dir + "/secret/x": secret} {
					tries{{"ln -snf " + target + " " + dir + "/app/current && echo made", "made"}}.try(t, j, p)
					tries{{connect, "rror"}, {"cat " + target + "/file || true", "No such file"}}.try(t, j, p)
				}
				tries{{"ln -snf whole " + dir + "/app/current && echo made", "made"}}.try(t, j, p)
				tries{{"cat " + chdir + "/file || cat " + dir + "/app/current/file", "app/whole"}}.try(t, j, p)
			}
		})
	}
}

// What anybody has left in the host's /tmp under a name that the ini mentions is in
// nobody's way, and shows nothing.
func TestLinkThatWasLeftInTmp(t *testing.T) {
	nettest.Root(t)
	for _, uid := range []int{0, 61200} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			dir := foldersOf(t, "secret")
			pidfile := fmt.Sprintf("/tmp/fiefdom-test-%d.pid", os.Getpid())
			linkTo(t, dir+"/secret/file", pidfile)
			t.Cleanup(func() { os.Remove(pidfile) })
			if err := errors.Join(os.Lchown(pidfile, 65534, 65534), os.Chmod(dir+"/secret/file", 0o600)); err != nil {
				t.Fatal(err)
			}
			p := confinedPlan(LevelDefault, "")
			p.UID, p.GID = uid, uid
			p.Confined.Hidden, p.Confined.Named = []string{dir}, []string{pidfile}
			tries{
				{"cat " + pidfile + " " + dir + "/secret/file 2>/dev/null | grep secret", ""},
				{"echo own >" + pidfile + " && cat " + pidfile, "own"},
			}.try(t, newJail(t, Link{Device: "eth0"}), p)
		})
	}
}

// What the host mounts later, below what the app is shown, is not seen.
func TestLaterMountsAreNotSeen(t *testing.T) {
	nettest.Root(t)
	dir := sharedFolder(t)
	mountsAt(t, "tmpfs", "tmpfs", dir, 0)
	if err := errors.Join(unix.Mount("", dir, "", unix.MS_SHARED, ""), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	names := []string{"read", "write", "bound"}
	for _, name := range names {
		if err := os.MkdirAll(dir+"/"+name+"/later", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := confinedPlan(LevelDefault, "")
	p.Confined.Reads, p.Confined.Writable = []string{dir + "/read"}, []string{dir + "/write"}
	p.Confined.Binds = []Bind{{Source: dir + "/bound", Target: dir + "/bound", ReadOnly: true}}
	p.Args = []string{"/bin/sh", "-c", "echo up; until test -e " + dir + "/write/go; do sleep 0.05; done; cd " + dir + "; ls read/later write/later bound/later"}
	a := startApp(t, newJail(t, Link{Device: "eth0"}), Launch{Plan: p, Namespaces: fullNamespaces})
	a.line(t)
	for _, name := range names {
		mountsAt(t, "tmpfs", "tmpfs", dir+"/"+name+"/later", 0)
		if err := os.WriteFile(dir+"/"+name+"/later/of-the-host", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/write/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := a.end(t); strings.Contains(out, "of-the-host") || !strings.Contains(out, "read/later") {
		t.Errorf("it sees\n%s", out)
	}
}

// An ini that names links without end costs its start little.
func TestManyLinks(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "app")
	p := confinedPlan(LevelDefault, "")
	for i := range maxPlaces {
		path := dir + "/app"
		for n := range 38 {
			next := fmt.Sprintf("%s/%d-%d", dir, i, n)
			linkTo(t, path, next)
			path = next
		}
		p.Confined.Named = append(p.Confined.Named, path)
	}
	p.Args = []string{"/bin/sh", "-c", fmt.Sprintf("for n in $(seq %d); do test -L %s/$((n-1))-37 && echo $n; done | wc -l", maxPlaces, dir)}
	out, _ := startApp(t, newJail(t, Link{Device: "eth0"}), Launch{Plan: p, Namespaces: fullNamespaces}).end(t)
	if want := fmt.Sprintln((linksAtMost + 37) / 38); out != want {
		t.Errorf("of %d ways there are %q, want %q", maxPlaces, out, want)
	}
}

// What an app begins with by a link is found, too, when the link is turned to another
// version; and a file that is not there yet when it comes.
func TestLinkThatIsTurned(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "app/releases/1", "app/releases/2", "touched")
	link := dir + "/app/current"
	linkTo(t, "releases/1", link)
	p := confinedPlan(LevelDefault, "")
	p.Chdir, p.Confined.Reads, p.Confined.Named = link, []string{link}, []string{dir + "/touched/reload"}
	p.Args = []string{"/bin/sh", "-c", "cat " + link + "/file; until test -e " + dir + "/touched/reload; do sleep 0.05; done; cat " + link + "/file; cd " + link + " && cat file"}
	a := startApp(t, newJail(t, Link{Device: "eth0"}), Launch{Plan: p, Namespaces: fullNamespaces})
	if got := a.line(t); got != "app/releases/1" {
		t.Errorf("it begins with %q", got)
	}
	linkTo(t, dir+"/app/releases/2", link+".new")
	if err := errors.Join(os.Rename(link+".new", link), os.WriteFile(dir+"/touched/reload", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, _ := a.end(t); !strings.Contains(out, "app/releases/2\napp/releases/2\n") {
		t.Errorf("then it finds %q", out)
	}
}

// A Python's virtual environment is seen as a whole, wherever the app begins.
func TestVirtualEnvironment(t *testing.T) {
	nettest.Root(t)
	dir := foldersOf(t, "app", "venv/bin", "venv/lib")
	if err := os.WriteFile(dir+"/venv/pyvenv.cfg", []byte("home = /usr/bin\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	linkTo(t, "/usr/bin/python3", dir+"/venv/bin/python")
	p := confinedPlan(LevelDefault, "")
	p.Chdir, p.Confined.Reads = dir+"/app", []string{dir + "/app", dir + "/venv/bin/python"}
	tries{
		{"cat file ../venv/lib/file", "app\nvenv/lib"},
		{dir + "/venv/bin/python -c 'import sys; print(sys.prefix)'", dir + "/venv"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
}
