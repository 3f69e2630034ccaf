package emperor

import (
	"context"
	"errors"
	"sync"
	"time"
)

// places bounds what costs the emperor: one at a time for each user, so that nobody
// takes the others', and so many in all.
type places struct {
	all chan struct{}

	mu  sync.Mutex
	own map[uint32]*ownPlace // of users who have or want one
}

// ownPlace is a user's.
type ownPlace struct {
	taken chan struct{} // full while it is
	users int
}

func newPlaces(n int) *places {
	return &places{all: make(chan struct{}, n), own: map[uint32]*ownPlace{}}
}

var errNoPlace = errors.New("you read another log now, or many others theirs; try again")

// take waits for a user's place, and for one of all. give gives them back.
func (p *places) take(ctx context.Context, uid uint32, patience time.Duration) (give func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoPlace)
	defer cancel()
	own := p.come(uid)
	select {
	case own.taken <- struct{}{}:
	case <-ctx.Done():
		p.leave(uid)
		return nil, context.Cause(ctx)
	}
	select {
	case p.all <- struct{}{}:
	case <-ctx.Done():
		<-own.taken
		p.leave(uid)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-p.all
		<-own.taken
		p.leave(uid)
	}, nil
}

func (p *places) come(uid uint32) *ownPlace {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own[uid] == nil {
		p.own[uid] = &ownPlace{taken: make(chan struct{}, 1)}
	}
	p.own[uid].users++
	return p.own[uid]
}

func (p *places) leave(uid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own[uid].users--; p.own[uid].users == 0 {
		delete(p.own, uid)
	}
}
