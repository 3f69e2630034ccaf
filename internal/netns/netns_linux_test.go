package netns_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// here is the number of the namespace of the calling thread.
func here(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Error(err) // not Fatal: also called from other goroutines
	}
	return st.Ino
}

func fresh(t *testing.T) (ns vnetns.NsHandle, inode uint64) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	inode, err = netns.Inode(ns)
	if err != nil {
		t.Fatal(err)
	}
	return ns, inode
}

func TestNewLeavesTheCaller(t *testing.T) {
	nettest.Root(t)
	before := here(t)
	_, inode := fresh(t)
	if inode == before {
		t.Errorf("new namespace is the old one, %d", inode)
	}
	if after := here(t); after != before {
		t.Errorf("caller moved from %d to %d", before, after)
	}
}

func TestDo(t *testing.T) {
	nettest.Root(t)
	ns, inode := fresh(t)
	before := here(t)

	t.Run("runs inside", func(t *testing.T) {
		var inside uint64
		if err := netns.Do(ns, func() error { inside = here(t); return nil }); err != nil {
			t.Fatal(err)
		}
		if inside != inode {
			t.Errorf("ran in %d, want %d", inside, inode)
		}
	})
	t.Run("returns the error", func(t *testing.T) {
		want := errors.New("no")
		if err := netns.Do(ns, func() error { return want }); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	})
	t.Run("nests", func(t *testing.T) {
		other, otherInode := fresh(t)
		var inner, outer uint64
		err := netns.Do(ns, func() error {
			err := netns.Do(other, func() error { inner = here(t); return nil })
			outer = here(t)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if inner != otherInode || outer != inode {
			t.Errorf("inner ran in %d, outer in %d, want %d and %d", inner, outer, otherInode, inode)
		}
	})
	t.Run("refuses what is no namespace", func(t *testing.T) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		err = netns.Do(vnetns.NsHandle(null.Fd()), func() error { t.Error("fn ran"); return nil })
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("got %v, want %v", err, unix.EINVAL)
		}
	})
	t.Run("passes a panic on", func(t *testing.T) {
		defer func() {
			if v := fmt.Sprint(recover()); !strings.HasPrefix(v, "boom\n") || !strings.Contains(v, "netns_linux_test.go") {
				t.Errorf("recovered %q, want boom and where it happened", v)
			}
		}()
		_ = netns.Do(ns, func() error { panic("boom") })
	})
	t.Run("passes Goexit on", func(t *testing.T) {
		done := make(chan bool)
		go func() {
			passed := true
			defer func() { done <- passed }()
			_ = netns.Do(ns, func() error { runtime.Goexit(); return nil })
			passed = false
		}()
		if !<-done {
			t.Error("the caller went on after Goexit")
		}
	})
	if after := here(t); after != before {
		t.Errorf("caller moved from %d to %d", before, after)
	}
}

// Whatever many goroutines do at once, no thread may stay behind in a namespace
// and no descriptor may be left open.
func TestNothingStaysBehind(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	home := here(t)

	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			ns, err := netns.New()
			if err != nil {
				t.Error(err)
				return
			}
			defer ns.Close()
			want, err := netns.Inode(ns)
			if err != nil {
				t.Error(err)
			}
			for range 20 {
				runtime.Gosched()
				err := netns.Do(ns, func() error {
					if unix.Gettid() == unix.Getpid() {
						t.Error("ran on the first thread of the process")
					}
					if got := here(t); got != want {
						t.Errorf("goroutine %d ran in %d, want %d", i, got, want)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	// Plain goroutines share the scheduler's threads with those above.
	for range 64 {
		wg.Go(func() {
			for range 200 {
				if got := here(t); got != home {
					t.Errorf("a bystander ran in %d, want %d", got, home)
					return
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()

	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("list threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		var st unix.Stat_t
		if unix.Stat(task, &st) == nil && st.Ino != home { // a thread may have ended meanwhile
			t.Errorf("%s is %d, want %d", task, st.Ino, home)
		}
	}
}
