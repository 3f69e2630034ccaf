package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is one that we made for a command, joined with ours.
type terminal struct {
	ours, theirs *os.File
	before       *unix.Termios // of our stdin; nil: it is no terminal, or was not changed
	resized      chan os.Signal
	shown        chan struct{} // closed when all that the command wrote is out; nil: it did not run
}

func openTerminal() (*terminal, error) {
	ours, theirs, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("a terminal for the command: %w; --tty=false goes without", err)
	}
	t := &terminal{ours: ours, theirs: theirs, resized: make(chan os.Signal, 1)}
	t.resize()
	return t, nil
}

// resize gives the terminal the size of ours.
func (t *terminal) resize() {
	if isTerminal(os.Stdin) {
		_ = pty.InheritSize(os.Stdin, t.ours) // it keeps the one it has
	}
}

// begin joins the terminals: keys are the command's from now on, ^C too.
func (t *terminal) begin() {
	t.before = makeRaw(os.Stdin)
	signal.Notify(t.resized, unix.SIGWINCH)
	go func() {
		for range t.resized {
			t.resize()
		}
	}()
	t.shown = make(chan struct{})
	go func() {
		defer close(t.shown)
		_, _ = io.Copy(os.Stdout, t.ours) // it ends with EIO when the command has ended
	}()
	go func() {
		// A stdin that is a pipe ends; the command is told by the key for that.
		if _, err := io.Copy(t.ours, os.Stdin); err == nil {
			_, _ = t.ours.Write([]byte{endOfInput})
		}
	}()
}

// endOfInput is ^D.
const endOfInput = 4

// lastWords bounds the wait for what the command wrote last: somebody who
// stopped our terminal (^S) may not look.
const lastWords = 5 * time.Second

// end puts our terminal back as it was.
func (t *terminal) end() error {
	signal.Stop(t.resized)
	close(t.resized)
	err := t.theirs.Close()
	if t.shown != nil {
		select {
		case <-t.shown:
		case <-time.After(lastWords):
		}
	}
	if t.before != nil {
		err = errors.Join(err, unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, t.before))
	}
	return errors.Join(err, t.ours.Close())
}

// makeRaw takes all meaning from the keys of a terminal, as cfmakeraw(3), and
// returns how it was; nil if it is none.
func makeRaw(f *os.File) *unix.Termios {
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw) != nil {
		return nil
	}
	return before
}
