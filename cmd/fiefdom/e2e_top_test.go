package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// sitting is a user at a terminal that runs a fiefdom command.
type sitting struct {
	*screen
	r    *realm
	pty  *os.File
	done chan struct{} // closed when nothing has the terminal open any more
	end  func() error  // waits for the command
}

func (r *realm) sit(rows, cols int, env []string, args ...string) *sitting {
	r.t.Helper()
	ptm, tty, err := pty.Open()
	if err != nil {
		r.t.Fatal(err)
	}
	defer tty.Close()
	s := &sitting{screen: newScreen(rows, cols), r: r, pty: ptm, done: make(chan struct{})}
	s.size(rows, cols)
	cmd := fiefdom(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	r.Start(r.t, cmd)
	s.end = cmd.Wait
	go func() {
		defer close(s.done)
		_, _ = io.Copy(s.screen, ptm) // until EIO
	}()
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // then nobody has the terminal open, and the copying ends
		<-s.done
		ptm.Close()
		if r.t.Failed() {
			r.t.Logf("the screen:\n%s\nstrays: %q", s.text(), s.strays)
		}
	})
	return s
}

// size resizes the terminal.
func (s *sitting) size(rows, cols int) {
	s.r.t.Helper()
	s.resize(rows, cols)
	if err := pty.Setsize(s.pty, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		s.r.t.Fatal(err)
	}
}

func (s *sitting) keys(text string) {
	s.r.t.Helper()
	if _, err := io.WriteString(s.pty, text); err != nil {
		s.r.t.Fatal(err)
	}
}

// sees waits until the screen matches.
func (s *sitting) sees(pattern string) {
	s.r.t.Helper()
	match := regexp.MustCompile(pattern)
	nettest.Eventually(s.r.t, patience, fmt.Sprintf("the user sees %q", pattern), func() bool { return match.MatchString(s.text()) })
}

// What a user sees and does: the table at 80 columns, order, filter, logs, status,
// a restart that asks first, another size, an emperor that goes and comes back.
func TestTop(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": "[uwsgi]\ncommand = /bin/sh -c \"echo hello from blog; printf 'bad\\\\033[2Jwords\\\\n'; exec AGENT\"\n",
		"shop": agentIni,
		"sick": "[uwsgi]\ncommand = /bin/sh -c 'exit 3'\n",
		"typo": "[uwsgi]\ncommand = AGENT\nuid = nobody at all\n",
	})
	blog := r.reach("blog")
	r.reach("shop")
	r.await("sick", "waits", func(s emperor.Status) bool { return s.State == emperor.Backoff && s.Backoff > 1 })
	s := r.sit(24, 80, []string{"TERM=vt100"}, "top")
	s.sees(`fiefdom emperor  4 vassals  2 running  1 (backoff|starting)`)
	s.sees(`(?m)^ NAME\+ +STATE +CPU% +MEM +IN/s +OUT/s +DROPS  RESTARTS$`)
	s.sees(`(?m)^>blog +running +\d+\.\d +\d\S*M +\d+B +\d+B +\d+ +0$`)
	s.sees(`(?m)^ typo +invalid `)
	for line := range strings.Lines(s.text()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}

	s.keys("/ty")
	s.sees(`(?m)^>typo +invalid `)
	s.sees(`filter "ty": 1`)
	if strings.Contains(s.text(), "shop") {
		t.Error("the filter lets shop through")
	}
	s.keys("\r")
	s.sees(`(?m)^/run/t/vassals/typo.ini:3: `) // why it is invalid
	s.keys("\x1b")
	s.sees(`(?m)^ shop +running`)

	s.keys("g")
	s.sees(`(?m)^>blog`)
	s.keys("l")
	s.sees(`logs of blog`)
	s.sees(`hello from blog\nbad\\x1b\[2Jwords`)
	s.keys("q")
	s.sees(`(?m)^>blog`)
	s.keys("s")
	s.sees(`status of blog[^§]*state: running since`)
	s.keys("q")
	s.sees(`(?m)^>blog`)

	s.keys("r")
	s.sees(`restart blog\? y/n`)
	s.keys("n")
	s.sees(`(?m)^>blog`)
	s.keys("jkr")
	s.sees(`restart blog\? y/n`)
	if now := r.ps("blog"); now.PID != blog.PID {
		t.Fatal("it was restarted without a yes")
	}
	s.keys("y")
	s.sees(`blog is running`)
	if now := r.reach("blog"); now.PID == blog.PID {
		t.Error("it was not restarted")
	}

	s.keys("ooooooo") // by restarts
	s.sees(`RESTARTS\+[^§]*(?m)^ sick`)
	s.sees(`(?s)sick.*blog.*shop`)
	s.size(10, 120)
	s.sees(`(?m)RESTART\S* +SINCE +ADDRESS$`)
	s.sees(`(?m)^.shop.* 10\.9\.\d+\.\d+$`)
	s.size(8, 40)
	s.sees(`fiefdom emperor`)
	s.size(24, 80)
	s.sees(`(?m) RESTARTS\+$`)

	s.emperorGoesAndComes()
	s.keys("q")
	if err := s.end(); err != nil {
		t.Errorf("top ended with %v", err)
	}
}

func (s *sitting) emperorGoesAndComes() {
	s.r.t.Helper()
	if err := s.r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.r.t.Fatal(err)
	}
	if code := s.r.wait(); code != exitOK {
		s.r.t.Errorf("the emperor's exit code is %d", code)
	}
	s.sees(`the emperor does not answer, trying again`)
	s.sees(`(?m)^.shop +running`) // as it was last seen
	s.r.start()
	s.r.reach("shop")
	s.sees(`(?s)\A[^§]*in \d+B/s`)
	s.sees(`(?m)^.shop +running`)
}

// Without a terminal, and with one that wants no colours.
func TestTopElsewhere(t *testing.T) {
	t.Parallel()
	r := newRealm(t, "[uwsgi]\nemperor = /run/t/vassals\n", map[string]string{
		"blog": "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n", "shop": "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n",
	})
	r.awaitState("blog", emperor.Running)
	r.awaitState("shop", emperor.Running)
	if out, code := r.run("top"); code != exitFailed || !strings.Contains(out, "fiefdom ps") {
		t.Errorf("without a terminal: exit code %d: %s", code, out)
	}
	colour := regexp.MustCompile(`\x1b\[[0-9;]*3[0-7][;m]`)
	for _, tc := range []struct {
		env  []string
		want bool
	}{
		{[]string{"TERM=xterm-256color", "COLORTERM="}, true},
		{[]string{"TERM=xterm-256color", "COLORTERM=", "NO_COLOR=1"}, false},
	} {
		s := r.sit(24, 80, tc.env, "top")
		s.sees(" shop +running")
		s.keys("q")
		if err := s.end(); err != nil {
			t.Error(err)
		}
		if got := colour.MatchString(s.bytes()); got != tc.want {
			t.Errorf("%q: colours: %v, want %v: %q", tc.env, got, tc.want, s.bytes())
		}
	}
	r.stop(syscall.SIGTERM)
}
