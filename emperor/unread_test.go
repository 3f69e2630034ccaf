package emperor

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fiefdom/internal/ini"
)

// An ini that cannot be read yet is tried again by one clock, whatever asks for it
// meanwhile, and by none once it has been read.
func TestOneClockForAnIniThatIsNotReadYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &member{name: "blog", file: iniFile{name: "blog", path: "/blog.ini"}, state: Stopped}
		e := testEmperor(t)
		e.vassals["blog"] = v
		var readings atomic.Int32
		var readable atomic.Bool
		e.expand = func(_ owner, files []iniFile) []expansion {
			readings.Add(1)
			return []expansion{{Name: "blog", file: files[0], later: !readable.Load(), Errors: ini.Errors{{Message: "no descriptors"}}}}
		}
		e.make()
		looping := make(chan struct{})
		go func() {
			defer close(looping)
			for f := range e.calls {
				f()
			}
		}()
		const hups = 5
		for range hups {
			e.Reload()
			synctest.Wait()
		}
		if readings.Load() != hups {
			t.Fatalf("read %d times by %d HUPs", readings.Load(), hups)
		}
		const seconds = 20
		time.Sleep(seconds * time.Second)
		synctest.Wait()
		if n := readings.Load() - hups; n < seconds/2 || n > seconds {
			t.Errorf("read %d times in %d s", n, seconds)
		}
		readable.Store(true) // it can be read, and is bad
		e.Reload()
		synctest.Wait()
		before := readings.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if readings.Load() != before {
			t.Errorf("read %d times more after it was read", readings.Load()-before)
		}
		e.jobs.Wait()
		close(e.calls)
		<-looping
	})
}
