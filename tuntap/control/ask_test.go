package control

import (
	"errors"
	"net/netip"
	"testing"

	"fiefdom/tuntap"
)

func TestKeeperExplains(t *testing.T) {
	r := newRig(t)
	r.run(t)
	q := tuntap.Query{Vassal: "blog", Proto: 6, Addr: netip.MustParseAddr("198.51.100.7"), Port: 443}
	if e, err := r.Explain(t.Context(), q); err != nil || e.Verdict != "allow" || e.Src != netip.MustParseAddr("10.9.0.7") {
		t.Errorf("%+v, %v", e, err)
	}
	q.Vassal = "nobody"
	if e, err := r.Explain(t.Context(), q); err == nil {
		t.Errorf("%+v", e)
	}
}

// A router that answers another question than was asked gets no further.
func TestStrangeAnswers(t *testing.T) {
	for name, reply := range map[string]func(id uint64) report{
		"a snapshot": func(id uint64) report { return report{Snapshot: &snapshot{ID: id}} },
		"nothing":    func(id uint64) report { return report{Answer: &answer{ID: id}} },
		"an answer":  func(id uint64) report { return report{Answer: &answer{ID: id}} },
	} {
		t.Run(name, func(t *testing.T) {
			k := &Keeper{answers: map[uint64]chan *report{}}
			ours, theirs := newTestPair(t)
			k.wire = ours
			done := make(chan struct{})
			go func() {
				defer close(done)
				var o order
				if _, err := theirs.receive(&o); err != nil {
					t.Error(err)
					return
				}
				id := o.Snapshot
				if o.Ask != nil {
					id = o.Ask.ID
				}
				r := reply(id)
				k.take(ours, &r, nil, func() {})
			}()
			var err error
			if name == "an answer" {
				_, err = k.Snapshot(t.Context())
			} else {
				_, err = k.Explain(t.Context(), tuntap.Query{})
			}
			if !errors.Is(err, errStrange) {
				t.Errorf("%v", err)
			}
			<-done
		})
	}
}
