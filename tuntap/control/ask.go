package control

import (
	"context"
	"errors"
	"fmt"

	"fiefdom/tuntap"
)

// question is what the keeper asks the router; one field beside the ID is set.
type question struct {
	ID      uint64        `json:"id"`
	Explain *tuntap.Query `json:"explain,omitempty"`
	Drops   string        `json:"drops,omitempty"` // the vassal whose drops are asked for
}

// answer is what the router says to a question.
type answer struct {
	ID          uint64              `json:"id"`
	Explanation *tuntap.Explanation `json:"explanation,omitempty"`
	Drops       []tuntap.PeerDrops  `json:"drops,omitempty"`
	Error       string              `json:"error,omitempty"` // it has no answer; why
}

func (s *server) answer(q *question) *answer {
	a := &answer{ID: q.ID}
	var err error
	switch {
	case q.Explain != nil:
		a.Explanation, err = s.router.Explain(*q.Explain)
	case q.Drops != "":
		a.Drops = s.router.LastDrops(q.Drops)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

var (
	errNoRouter = errors.New("the router is being started; try again")
	errEnded    = errors.New("the router ended")
	errStrange  = errors.New("the router answered something else") // the emperor trusts no router
)

// Explain asks the router what would become of a packet.
func (k *Keeper) Explain(ctx context.Context, q tuntap.Query) (*tuntap.Explanation, error) {
	a, err := k.put(ctx, question{Explain: &q})
	if err == nil && a.Explanation == nil {
		err = errStrange
	}
	if err != nil {
		return nil, err
	}
	return a.Explanation, nil
}

// LastDrops asks the router for the drops of a vassal's packets, by peer.
func (k *Keeper) LastDrops(ctx context.Context, vassal string) ([]tuntap.PeerDrops, error) {
	a, err := k.put(ctx, question{Drops: vassal})
	if err != nil {
		return nil, err
	}
	return a.Drops, nil
}

// put asks a question. An error is the router's, if it is no error of the way there.
func (k *Keeper) put(ctx context.Context, q question) (*answer, error) {
	r, err := k.ask(ctx, func(id uint64) order {
		q.ID = id
		return order{Ask: &q}
	})
	switch {
	case err != nil:
		return nil, err
	case r.Answer == nil:
		return nil, errStrange
	case r.Answer.Error != "":
		return nil, errors.New(r.Answer.Error)
	}
	return r.Answer, nil
}

// Snapshot asks the router for its counters.
func (k *Keeper) Snapshot(ctx context.Context) ([]tuntap.NetworkStats, error) {
	r, err := k.ask(ctx, func(id uint64) order { return order{Snapshot: id} })
	if err == nil && r.Snapshot == nil {
		err = errStrange
	}
	if err != nil {
		return nil, err
	}
	return r.Snapshot.Networks, nil
}

// ask sends an order that is answered and waits for the answer. what makes the
// order, with its number.
func (k *Keeper) ask(ctx context.Context, what func(id uint64) order) (*report, error) {
	k.mu.Lock()
	w := k.wire
	k.asked++
	id := k.asked
	answer := make(chan *report, 1)
	if w != nil {
		k.answers[id] = answer
	}
	k.mu.Unlock()
	if w == nil {
		return nil, errNoRouter
	}
	forget := func() {
		k.mu.Lock()
		delete(k.answers, id)
		k.mu.Unlock()
	}
	if err := w.send(what(id)); err != nil {
		forget()
		return nil, fmt.Errorf("ask the router: %w", err)
	}
	select {
	case r, ok := <-answer:
		if !ok {
			return nil, errEnded
		}
		return r, nil
	case <-ctx.Done():
		forget()
		return nil, fmt.Errorf("ask the router: %w", ctx.Err())
	}
}

// answered hands an answer to who asked, if he still waits.
func (k *Keeper) answered(id uint64, r *report) {
	k.mu.Lock()
	answer := k.answers[id]
	delete(k.answers, id)
	k.mu.Unlock()
	if answer != nil {
		answer <- r
	}
}
