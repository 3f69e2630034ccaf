package emperor

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A user waits for himself alone, and nothing is kept of who has left.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ann, bob, eve = 1, 2, 3
		p := newPlaces(2)
		take := func(uid uint32) (func(), error) { return p.take(t.Context(), uid, time.Minute) }
		anns, err := take(ann)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := take(ann); !errors.Is(err, errNoPlace) {
			t.Errorf("a second place of one user: %v", err)
		}
		began := time.Now()
		bobs, err := take(bob)
		if err != nil || time.Since(began) > 0 {
			t.Fatalf("another user waits for %v: %v", time.Since(began), err)
		}
		if _, err := take(eve); !errors.Is(err, errNoPlace) {
			t.Errorf("more than there are in all: %v", err)
		}
		time.AfterFunc(time.Second, anns)
		eves, err := take(eve)
		if err != nil || time.Since(began) > time.Minute+time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		eves()
		bobs()
		if len(p.own)+len(p.all) > 0 {
			t.Errorf("left: %v, %d", p.own, len(p.all))
		}
	})
}
