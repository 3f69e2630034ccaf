package emperor

import (
	"testing"
	"time"
)

// Before an emperor gives his place away who follows an output has all of it
// that was read; one who takes nothing is not waited for.
func TestFollowersAreTold(t *testing.T) {
	o := &output{}
	f := o.follow()
	if !o.toldAll() {
		t.Error("there is nothing to tell")
	}
	o.keep([]byte("one\ntwo\nhalf"))
	if o.toldAll() {
		t.Error("two lines are not told")
	}
	awaitFollowers([]*output{o}, time.Now().Add(10*time.Millisecond)) // returns
	_, next := o.history.since(0).lines(true)
	o.told(f, next)
	if !o.toldAll() {
		t.Error("half a line is waited for")
	}
	o.keep([]byte(" a line\n"))
	done := make(chan struct{})
	go func() { defer close(done); awaitFollowers([]*output{o}, time.Now().Add(time.Minute)) }()
	o.leave(f)
	<-done
}
