package emperor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// scaled is the full number where make soak asks for it. Tests that use it have
// Soak in their names.
func scaled[N int | time.Duration](normal, full N) N {
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		return full
	}
	return normal
}

// An owner swaps his ini with a link to somebody else's all the time: what
// starts is his own. // T26
func TestSwappedInisSoak(t *testing.T) {
	for _, noFollow := range []bool{false, true} {
		t.Run(fmt.Sprintf("nofollow=%v", noFollow), func(t *testing.T) {
			r := newRealm(t, func(e *Emperor) {
				e.Config.Tyrant, e.Config.TyrantNoFollow = true, noFollow
				e.Config.Throttle = time.Millisecond
			})
			outside := sharedDir(t)
			says := func(path string, uid int) {
				write(t, path, fmt.Sprintf("[uwsgi]\ncommand = /bin/sh -c 'echo ini of %d runs as $(id -u); exec sleep 1000'\nreload-mercy = 100ms\n", uid))
				if err := os.Chown(path, uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			const owner = 61200
			others := map[string]int{"toroot": 0, "totenant": 61201}
			if noFollow {
				delete(others, "toroot") // root's skeleton is for everybody
			}
			for name, uid := range others {
				target, link, path := filepath.Join(outside, name), filepath.Join(outside, name+".link"), filepath.Join(r.dir, name+".ini")
				says(target, uid)
				says(filepath.Join(outside, name+".ini"), owner)
				if err := errors.Join(os.Rename(filepath.Join(outside, name+".ini"), path), os.Symlink(target, link), os.Lchown(link, owner, owner)); err != nil {
					t.Fatal(err)
				}
			}
			for name := range others {
				r.awaitState(t, name, Running)
			}
			nettest.Eventually(t, 10*time.Second, "each has said who it is", func() bool { return strings.Count(r.output.String(), "\n") >= len(others) })
			swaps := 0
			for until := time.Now().Add(scaled(2*time.Second, 60*time.Second)); time.Now().Before(until); swaps++ {
				for name := range others {
					if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(r.dir, name+".ini"), unix.AT_FDCWD, filepath.Join(outside, name+".link"), unix.RENAME_EXCHANGE); err != nil {
						t.Fatal(err)
					}
				}
				if swaps%1999 == 0 { // now and then a start gets through, of either file
					time.Sleep(50 * time.Millisecond)
				}
			}
			r.end()
			own := fmt.Sprintf("ini of %d runs as %d", owner, owner)
			starts := 0
			for line := range strings.Lines(r.output.String()) {
				if starts++; !strings.HasSuffix(strings.TrimSpace(line), own) {
					t.Fatalf("after %d swaps: %s", swaps, line)
				}
			}
			t.Logf("%d swaps, %d starts", swaps, starts)
			if starts < len(others) || swaps < 1000 {
				t.Errorf("%d starts, %d swaps", starts, swaps)
			}
		})
	}
}

// An ini that is truncated and written anew all the time, in two pieces, is
// never taken for what it is in between. // T27
func TestRewrittenInisSoak(t *testing.T) {
	nettest.Root(t)
	r := newRealm(t, nil)
	path := filepath.Join(r.dir, "blog.ini")
	rewrite := func(i int) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = fmt.Fprintf(f, "[uwsgi]\nreload-mercy = 100ms\nenv = BEGIN=%d\ncommand = /bin/sh -c 'echo from $BEGIN to $END; exec sleep 1000'\n", i)
		_, werr := fmt.Fprintf(f, "env = END=%d\n", i)
		if err := errors.Join(err, werr, f.Close()); err != nil {
			t.Error(err)
		}
	}
	cycles, enough := scaled(2000, 100_000), 10
	rewrite(0)
	var written, whole int
	var seen atomic.Int64 // whole ones, so that a busy machine goes on until it has read some
	over := make(chan struct{})
	go func() {
		defer close(over)
		for until := time.Now().Add(2 * time.Minute); written < cycles || seen.Load() < int64(enough) && time.Now().Before(until); written++ {
			rewrite(written)
		}
	}()
	for reading := true; reading; seen.Store(int64(whole)) {
		select {
		case <-over:
			reading = false
		default:
		}
		x := new(Common).read(expandFileRequest{Name: "blog", Path: path}, nil)
		if x.Config == nil || x.Errors.Failed() {
			continue
		}
		whole++
		if env := x.Config.Env; len(env) != 2 || strings.TrimPrefix(env[0], "BEGIN") != strings.TrimPrefix(env[1], "END") {
			t.Fatalf("half an ini is a good one: %q", env)
		}
	}
	last := fmt.Sprintf("from %d to %d\n", written-1, written-1)
	nettest.Eventually(t, 20*time.Second, "the last one runs", func() bool { return strings.Contains(r.output.String(), last) })
	r.end()
	starts := 0
	for line := range strings.Lines(r.output.String()) {
		var from, to int
		starts++
		if n, _ := fmt.Sscanf(line[strings.Index(line, "from"):], "from %d to %d", &from, &to); n != 2 || from != to {
			t.Fatalf("half an ini was started: %s", line)
		}
	}
	t.Logf("%d cycles, %d times read, %d starts", written, whole, starts)
	if whole < enough {
		t.Errorf("it was read %d times only", whole)
	}
}
