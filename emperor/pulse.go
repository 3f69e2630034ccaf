package emperor

import "context"

// Pulse is what the loop says of itself, each time that it is felt.
type Pulse struct {
	States  map[State]int // how many vassals are in each; none after the loop's end
	Reading bool          // inis that were found wait to be read; without them every good one has begun
}

// Pulse has the loop answer, and comes back when it did: so it tells that the
// loop turns. Before Run it waits for the first scan. After Run's end the answer
// is empty. The error is that of ctx.
func (e *Emperor) Pulse(ctx context.Context) (Pulse, error) {
	e.make()
	felt := make(chan Pulse, 1)
	beat := func() {
		p := Pulse{States: map[State]int{}, Reading: len(e.queued) > 0 || len(e.expanding) > 0}
		for _, v := range e.vassals {
			p.States[v.state]++
		}
		felt <- p
	}
	select {
	case e.calls <- beat:
	case <-e.stopped:
		return Pulse{}, nil
	case <-ctx.Done():
		return Pulse{}, ctx.Err()
	}
	select {
	case p := <-felt:
		return p, nil
	case <-e.stopped:
		return Pulse{}, nil
	case <-ctx.Done():
		return Pulse{}, ctx.Err()
	}
}
