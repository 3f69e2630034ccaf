package tuntap

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A device is in a flood when many datagrams that could be merged came in a
// short time, and did so for a while.
func TestFloodIsKnownByItsPace(t *testing.T) {
	const us = int64(time.Microsecond)
	for name, c := range map[string]struct {
		every  int64 // between two times that it is empty
		merged int   // datagrams since the last one
		flood  bool
	}{
		"a flood":                  {20 * us, 10, true},
		"a flood after each rest":  {restTime.Nanoseconds(), 20, true},
		"a few, and a lot of time": {100 * us, 3, false},
		"one at a time, in haste":  {us, 1, false},
		"streams":                  {20 * us, 0, false},
		"just too slow":            {80 * us, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			now, flood := int64(1), false
			for turn := range 3 * floodTurns {
				now += c.every
				p.merged += c.merged
				flood = p.flooding(now)
				if flood && turn < floodTurns-1 {
					t.Fatalf("after %d turns only", turn+1)
				}
				if p.flooding(now) {
					t.Fatal("asked again in the same turn, it counts that as another")
				}
			}
			if flood != c.flood {
				t.Errorf("flood: %v, want %v", flood, c.flood)
			}
			now += int64(time.Second)
			p.merged = 1
			if p.flooding(now) {
				t.Error("still one after a second of silence")
			}
		})
	}
}

// flooded makes a device of blog's be in a flood.
func flooded(t *testing.T) (*shard, *source) {
	s := newStill(t)
	shard, dev := s.blog.shard, s.blog.dev
	if dev.mask != unix.EPOLLIN {
		t.Fatalf("its device is watched for %#x", dev.mask)
	}
	for range floodTurns + 1 { // the first one only starts the clock
		shard.now += int64(10 * time.Microsecond)
		shard.merged = 64
		shard.emptied(dev)
	}
	if !slices.Contains(shard.resting, dev) || dev.mask != 0 {
		t.Fatalf("it does not rest: mask %#x", dev.mask)
	}
	return shard, dev
}

func expected(s *shard, dev *source) bool {
	return len(s.resting) == 0 && dev.mask == unix.EPOLLIN && slices.Contains(s.poll.soon, dev)
}

func TestRestEndsByItself(t *testing.T) {
	s, dev := flooded(t)
	if n, err := s.wait(); n != 0 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
	if !expected(s, dev) {
		t.Error("its device is not read after the rest")
	}
}

// Others that are busy all the time do not make a rest last.
func TestRestEndsBesideBusyOthers(t *testing.T) {
	s, dev := flooded(t)
	s.mail.poke() // an event that is always there
	if n, err := s.wait(); n == 0 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
	if expected(s, dev) {
		t.Error("the rest is over at once")
	}
	s.now += restTime.Nanoseconds()
	if n, err := s.wait(); n == 0 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
	if !expected(s, dev) {
		t.Error("the rest goes on")
	}
}

// A device that is closed while it rests is not watched again: its slot may be
// another's.
func TestRestOfADeviceThatGoes(t *testing.T) {
	s, dev := flooded(t)
	s.poll.remove(dev)
	if _, err := s.wait(); err != nil {
		t.Fatal(err)
	}
	if len(s.resting) != 0 || slices.Contains(s.poll.soon, dev) {
		t.Error("it is to be read")
	}
}
