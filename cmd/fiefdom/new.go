package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"fiefdom/emperor"
	"fiefdom/vassal"
)

func newCommand(t *target) *cobra.Command {
	var dir string
	var wait, asJSON bool
	var publish []string
	c := &cobra.Command{
		Use: "new NAME -- COMMAND [ARGUMENT...]", Short: "Write the ini of a new vassal",
		Long: `New writes NAME.ini with the command, and with what is usual beside it in
comments, into the folder of the emperor that runs, of the one that --config
names, or into --dir. An ini that is there is never overwritten. A command that
is a relative path becomes an absolute one; if it or an argument names a file of
this folder, the app begins in this folder.`,
		Example: "  fiefdom new hello -- python3 -m http.server 8000\n  fiefdom new --wait hello -- /srv/hello/run --port 80\n  fiefdom new --publish 8080:8000 hello -- python3 -m http.server 8000",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("no name, or no command behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err == nil && dir == "" {
				dir, err = t.folder(cmd.Context(), client)
			}
			if dir == "" {
				return fmt.Errorf("%w; or name the folder with --dir", err)
			}
			path, err := scaffold(dir, args[0], args[1:], publish)
			if err != nil {
				return err
			}
			if asJSON {
				return printNew(cmd.Context(), cmd.OutOrStdout(), client, path, wait)
			}
			fmt.Fprintln(cmd.OutOrStdout(), path, "is written")
			if !wait {
				tellNext(cmd.Context(), cmd.OutOrStdout(), client, path)
				return nil
			}
			s, err := awaitNew(cmd.Context(), client, path)
			if err != nil {
				return err
			}
			tellNew(cmd.OutOrStdout(), &s)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the folder to write into")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the vassal runs, and print its address")
	c.Flags().StringArrayVar(&publish, "publish", nil, "HOSTPORT:PORT: make a port of the app's reachable at the host's; repeatable")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: the file, its options and, with --wait, the status")
	return c
}

// folder is where the emperor looks for inis: as he says, else as his ini does.
func (t *target) folder(ctx context.Context, client *emperor.Client) (string, error) {
	self, err := client.Self(ctx)
	if err != nil && t.config != "" {
		l, lerr := loadEmperor(t.config)
		if lerr != nil {
			return "", lerr
		}
		self.Folders, err = l.config.Folders(), nil
	}
	if err == nil && len(self.Folders) == 0 {
		err = emperor.NotFound("the emperor watches no folder")
	}
	if err != nil {
		return "", err
	}
	return self.Folders[0], nil
}

// vassalName is stricter than what an emperor takes: a name that never has to
// be quoted.
var vassalName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) })

// scaffold writes an ini that is not there yet, whole at once, and only if it
// gives back the very command.
func scaffold(dir, name string, argv, publish []string) (path string, err error) {
	if !vassalName().MatchString(name) || strings.HasSuffix(name, ".ini") {
		return "", fmt.Errorf("%w: %.100q is no name for a new vassal; want up to 64 letters, digits, dots, dashes and underscores, without .ini", errUsage, name)
	}
	argv = slices.Clone(argv)
	home := homeOf(argv)
	if strings.Contains(argv[0], "/") {
		if argv[0], err = filepath.Abs(argv[0]); err != nil {
			return "", err
		}
	}
	for _, text := range publish {
		if _, err := vassal.ParsePublish(text); err != nil {
			return "", fmt.Errorf("%w: --publish %s: %w", errUsage, text, err)
		}
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return "", notRunnable(argv[0], err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name+".ini")
	// No emperor takes a file of such a name for an ini.
	tmp, err := os.CreateTemp(dir, "."+name+".new-")
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%s: you (uid %d) may not write there; run it as root, or have the folder's owner let you", dir, os.Geteuid())
	case err != nil:
		return "", err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = io.WriteString(tmp, scaffoldText(name, argv, home, publish))
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return "", err
	}
	config, errs := emperor.ReadVassal(name, tmp.Name(), nil)
	if errs.Failed() || !slices.Equal(config.Command, argv) || config.Chdir != home {
		return "", fmt.Errorf("the command or this folder's name cannot stand in an ini, as one with line breaks or bytes that are no text cannot; put it into a script: %q", argv)
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("%s is there already; choose another name, or edit it", path)
	} else if err != nil {
		return "", err
	}
	return path, nil
}

// notRunnable says why a program cannot be an app.
func notRunnable(program string, err error) error {
	err = errors.Unwrap(err)
	switch {
	case !strings.Contains(program, "/"):
		return fmt.Errorf("%s: %w; install it, or write its whole path", program, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w; is it executable (chmod +x)?", program, err)
	}
	return fmt.Errorf("%s: %w", program, err)
}

// homeOf is the folder in which a command names files, if it does: who types
// "python3 app.py" means the app.py that is there.
func homeOf(argv []string) string {
	here, err := os.Getwd()
	if err != nil {
		return ""
	}
	for i, arg := range argv {
		if _, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "-") {
			arg = value
		}
		if filepath.IsAbs(arg) || arg == "" || strings.HasPrefix(arg, "-") || i == 0 && !strings.Contains(arg, "/") {
			continue
		}
		if _, err := os.Stat(filepath.Join(here, arg)); err == nil {
			return here
		}
	}
	return ""
}

// scaffoldText is the ini of a new vassal. Its app begins in the folder home, if
// that is not "".
func scaffoldText(name string, argv []string, home string, publish []string) string {
	chdir := ";chdir = /srv/" + name
	if home != "" {
		chdir = "chdir = " + strings.ReplaceAll(home, "%", "%%")
	}
	ports := ";publish = 8080:8000"
	if len(publish) > 0 {
		ports = "publish = " + strings.Join(publish, "\npublish = ")
	}
	words := make([]string, len(argv))
	for i, arg := range argv {
		words[i] = quoteWord(arg)
	}
	return strings.NewReplacer("NAME", name, "COMMAND", strings.Join(words, " "), "CHDIR", chdir, "PUBLISH", ports).Replace(scaffoldLines)
}

const scaffoldLines = `; The vassal NAME. The emperor reads this file again when it changes: the app is
; then started anew. Remove the file, and the app is gone. What is wrong with it is
; told by "fiefdom status NAME", all options by "fiefdom options".

[uwsgi]
command = COMMAND

; Take away a semicolon to have one of these.

; Ports of this machine that lead to the app: the machine's, then the app's. From
; everywhere; 127.0.0.1:8080:8000 is for this machine's own programs alone.
PUBLISH

; The folder in which the app begins. Without it: /
CHDIR

; Who it is, and so what files it may read and write. Without these it has a uid of
; its own, which "fiefdom ps" shows: chown what it writes to that.
;uid = www-data
;gid = www-data

; A folder that it writes, of those that it may. Without it: /tmp and the like,
; which are its own and empty at each start.
;writable = /srv/NAME/data

; What it finds in its environment, a line each. (A python that is to print at once:
; PYTHONUNBUFFERED=1.)
;env = PORT=8000

; An address to rely on, of the network's pool. Without it the emperor finds one,
; which stays the same.
;tuntap-device-address = 10.9.0.7

; What it may use at most, with all that it starts.
;limit-memory = 512M
;limit-cpu = 0.5

; When it is ready, and how to ask whether it is well.
;ready = tcp:8000
;health = http:8000/

; A file for its output, which "fiefdom logs NAME" shows in any case.
;logto = /var/log/NAME.log

; How it is asked to stop, and how many seconds it has for that.
;stop-signal = TERM
;reload-mercy = 10
`

var plainWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:=,+-]+$`) })

// quoteWord quotes an argument for the option command. What the dialect would
// replace is doubled, %x, or broken up by quotes that end and begin again, $(x), @(x);
// so is what check would take for a comment that is none.
func quoteWord(arg string) string {
	if plainWord().MatchString(arg) {
		return arg
	}
	return "'" + strings.NewReplacer("'", `'\''`, "%", "%%", "$(", "$''(", "@(", "@''(", " #", " ''#").Replace(arg) + "'"
}

// tellNext says what happens to the new ini.
func tellNext(ctx context.Context, out io.Writer, client *emperor.Client, path string) {
	name := emperor.NameOf(path)
	switch instance, watches := watcher(ctx, client, path); {
	case instance == "":
		fmt.Fprintln(out, "No emperor that runs was found; the one that watches this folder will start it.")
	case !watches:
		fmt.Fprintf(out, "The emperor %s does not watch this folder.\n", instance)
	default:
		fmt.Fprintf(out, "The emperor %s starts it now:\n  fiefdom status %s\n  fiefdom logs -f %[2]s\n", instance, name)
	}
}

// watcher is the emperor that runs, "" without one, and whether he watches the
// folder of an ini.
func watcher(ctx context.Context, client *emperor.Client, path string) (instance string, watches bool) {
	if client == nil {
		return "", false
	}
	self, err := client.Self(ctx)
	if err != nil {
		return "", false
	}
	return self.Instance, slices.Contains(self.Folders, filepath.Dir(path))
}

// newVassal is what fiefdom new --json prints. The schema is stable: fields are
// only added.
type newVassal struct {
	Name    string          `json:"name"`
	File    string          `json:"file"`
	Options []newOption     `json:"options"`          // that are in the file
	Emperor string          `json:"emperor"`          // that watches the folder and starts it; empty: none that runs
	Status  *emperor.Status `json:"status,omitempty"` // with --wait
}

type newOption struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func printNew(ctx context.Context, out io.Writer, client *emperor.Client, path string, wait bool) error {
	n := newVassal{Name: emperor.NameOf(path), File: path}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(line, ";") {
			n.Options = append(n.Options, newOption{strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	if instance, watches := watcher(ctx, client, path); watches {
		n.Emperor = instance
	}
	var failed error
	if wait {
		s, err := awaitNew(ctx, client, path)
		if failed = err; err == nil {
			n.Status = &s
		}
	}
	return errors.Join(printJSON(out, n), failed)
}

// Times of awaitNew.
const (
	newTime   = 30 * time.Second // for a new vassal to run
	newProved = time.Second      // that it has to run to be told of
	newPause  = 20 * time.Millisecond
)

// awaitNew waits until a new vassal runs. An app that dies at once does not run.
func awaitNew(ctx context.Context, client *emperor.Client, path string) (s emperor.Status, err error) {
	if client == nil {
		return s, emperor.NotFound("no emperor that runs was found to start it")
	}
	name := emperor.NameOf(path)
	ctx, cancel := context.WithTimeout(ctx, newTime)
	defer cancel()
	for {
		s, err = client.Get(ctx, name)
		switch {
		case err != nil && !errors.Is(err, emperor.ErrNotFound):
			return s, err
		case err != nil || s.File != path:
			// not seen yet
		case s.Error != "":
			return s, fmt.Errorf("%s does not run: %s; see: fiefdom logs %[1]s", name, plain(s.Error))
		case s.State == emperor.Sleeping, s.State == emperor.Running && s.Restarts == 0 && time.Since(s.Since) > newProved:
			return s, nil
		}
		select {
		case <-time.After(newPause):
		case <-ctx.Done():
			return s, fmt.Errorf("%s does not run after %v; see: fiefdom status %s", name, newTime, name)
		}
	}
}

// tellNew says where a new vassal is.
func tellNew(out io.Writer, s *emperor.Status) {
	if s.State == emperor.Sleeping {
		fmt.Fprintf(out, "%s sleeps until somebody connects to %s\n", s.Name, s.Socket)
		return
	}
	fmt.Fprintf(out, "%s runs: pid %d, uid %s, address %s\n", s.Name, s.PID, uid(s.UID), addresses(s.Addresses))
	if len(s.Published) > 0 {
		fmt.Fprintf(out, "published at %s\n", strings.Join(emperor.PublishedTexts(s.Published), ", "))
	}
}
