package vassal

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
	"fiefdom/internal/nettest"
)

func TestLogOptions(t *testing.T) {
	for ini, want := range map[string]logfile.Rules{
		"":                                    {Backups: defaultBackups},
		"log-maxsize = 10M":                   {Backups: defaultBackups, MaxSize: 10 << 20},
		"log-maxsize = 10485760":              {Backups: defaultBackups, MaxSize: 10 << 20},
		"log-maxsize = 1gb":                   {Backups: defaultBackups, MaxSize: 1 << 30},
		"log-maxsize = 1000":                  {Backups: defaultBackups, MaxSize: logfile.MinSize},
		"log-maxsize = 0":                     {Backups: defaultBackups},
		"log-maxage = 7d":                     {Backups: defaultBackups, MaxAge: 7 * 24 * time.Hour},
		"log-maxage = 12h":                    {Backups: defaultBackups, MaxAge: 12 * time.Hour},
		"log-backups = 3\nlog-compress = yes": {Backups: 3, Compress: true},
		"log-backups = 0":                     {},
		"log-backupname = old":                {Backups: defaultBackups, BackupName: "old"},
		"log-backupname = /var/log/old":       {Backups: defaultBackups, BackupName: "old"},
	} {
		c, errs := parse(t, "command = a\nlogto = /var/log/a\n"+ini)
		if errs.Failed() {
			t.Errorf("%q: %v", ini, errs)
		} else if got := c.Log.Rules(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", ini, got, want)
		}
	}
}

func TestLogOptionsThatAreWrong(t *testing.T) {
	for ini, want := range map[string]string{
		"log-maxsize = big":                                    "no size",
		"log-maxsize = 9999999999999T":                         "no size",
		"log-maxsize = -1":                                     "no size",
		"log-maxage = soon":                                    "no age",
		"log-maxage = 99999d":                                  "no age",
		"log-backups = -1":                                     "want a number",
		"log-backups = 100000":                                 "want a number",
		"log-backupname =":                                     "empty",
		"log-backupname = /etc/passwd":                         "in the folder of logto",
		"log-backupname = ../x":                                "in the folder of logto",
		"log-backupname = ..":                                  "in the folder of logto",
		"log-backupname = a":                                   "another than the log's",
		"touch-logreopen = here":                               "absolute",
		"touch-logrotate = there":                              "absolute",
		strings.Repeat("touch-logrotate = /x\n", maxTouches+1): "more than",
	} {
		if _, errs := parse(t, "command = a\nlogto = /var/log/a\n"+ini); !errs.Failed() || !strings.Contains(errs.Error(), want) {
			t.Errorf("%q: %v, want %q", ini, errs, want)
		}
	}
	// What no ini can have given.
	for name, l := range map[string]Logging{
		"tiny": {MaxSize: 1}, "negative": {MaxSize: -5}, "age": {MaxAge: -1}, "eternal": {MaxAge: 1 << 62}, "relative": {TouchReopen: []string{"x"}},
		"NUL": {BackupName: "a\x00b"}, "long": {BackupName: strings.Repeat("x", 300)}, "no name": {BackupName: "/"},
	} {
		if err := l.Check("/var/log/a"); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Root follows no link on the way to a log that somebody else could have made.
func TestFolderOfALog(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	dir, err := os.MkdirTemp("/run", "fiefdom-log") // on the way there is nobody but root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const owner = 61200
	his := dir + "/his"
	err = errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", dir+"/link"), os.Symlink(dir+"/link", dir+"/links"), os.Symlink("loop", dir+"/loop"),
		os.Mkdir(his, 0o755), os.Mkdir(his+"/own", 0o755), os.Symlink("/etc", his+"/link"), os.Symlink(his+"/own", dir+"/to-his"),
		os.Symlink(his+"/link", dir+"/to-his-link"), os.Symlink("real", dir+"/foreign"), os.WriteFile(dir+"/file", nil, 0o600))
	for _, name := range []string{his, his + "/own", his + "/link", dir + "/foreign"} {
		err = errors.Join(err, os.Lchown(name, owner, owner))
	}
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/real": "", "/link": "", "/links": "", "/link/../real": "", "/his/own": "", "/to-his": "",
		"/loop": "too many levels", "/his/link": "symbolic link", "/to-his-link": "symbolic link", "/foreign": "symbolic link",
		"/nothing": "no such file", "/file": "not a directory", "/file/x": "not a directory", "/his/own/../link": "symbolic link",
	} {
		f, err := openTrusted(dir + path)
		switch {
		case err == nil:
			f.Close()
			if want != "" {
				t.Errorf("%s is opened", path)
			}
		case want == "" || !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Whose rights count for a log, by who has its folder.
func TestRightsToALog(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	dir, err := os.MkdirTemp("/run", "fiefdom-log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const owner, other = 61200, 61201
	for _, name := range []string{"roots", "his"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir+"/his", owner, owner)); err != nil {
		t.Fatal(err)
	}
	lay := func(name string, uid int) string {
		path := dir + "/his/" + name
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, uid, uid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lay("linked", 0)
	if err := os.Link(dir+"/his/linked", dir+"/his/linked2"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path   string
		logUID int
		uid    int // of the file; -1: it is refused
	}{
		"root's folder":               {dir + "/roots/a", -1, 0},
		"somebody's folder":           {dir + "/his/a", -1, owner},
		"root's file in it":           {lay("roots", 0), -1, 0},
		"root's file with two names":  {dir + "/his/linked", -1, -1},
		"another's file in it":        {lay("others", other), -1, -1},
		"tyrant":                      {dir + "/his/b", owner, owner},
		"tyrant, root's file":         {lay("roots2", 0), owner, -1},
		"tyrant, root's folder":       {dir + "/roots/b", owner, -1},
		"tyrant, somebody's folder":   {dir + "/his/c", other, -1},
		"the log is a folder":         {dir + "/his", -1, -1},
		"the folder is not there":     {dir + "/none/a", -1, -1},
		"the folder is not there, as": {dir + "/none/a", owner, -1},
	} {
		t.Run(name, func(t *testing.T) {
			plan := Plan{LogTo: tc.path, LogUID: tc.logUID, GID: tc.logUID}
			f, err := plan.OpenLog(false)
			if err != nil {
				if tc.uid >= 0 {
					t.Error(err)
				}
				return
			}
			defer f.Close()
			if _, err := io.WriteString(f, "x\n"); err != nil {
				t.Error(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(tc.path, &st); err != nil || int(st.Uid) != tc.uid || st.Size != 2 {
				t.Errorf("it belongs to %d and has %d bytes, %v; want %d", st.Uid, st.Size, err, tc.uid)
			}
		})
	}
}

// Whoever's rights to files one thread has, all others keep theirs: the groups, too.
func TestRightsOfOneThreadAreItsOwn(t *testing.T) {
	nettest.Root(t)
	before, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{4242}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setgroups(before); err != nil {
			t.Error(err)
		}
	}()
	err = RightsOf(1000, 1000)(func() error {
		if groups, err := syscall.Getgroups(); err != nil || len(groups) > 0 {
			t.Errorf("the thread has the groups %v, %v", groups, err)
		}
		return nil
	})
	groups, gerr := syscall.Getgroups()
	if err := errors.Join(err, gerr); err != nil || !slices.Equal(groups, []int{4242}) {
		t.Errorf("another thread has the groups %v, %v", groups, err)
	}
}
