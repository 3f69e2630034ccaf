package responder

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// told is what a process knows.
type told struct {
	has  map[uint64]bool // sockets
	text []byte          // the last order
}

// tell tells a process what it does not know.
func (k *Keeper) tell(control *net.UnixConn, t *told) error {
	for more := true; more; {
		o, fds, err := k.order(t)
		if err != nil {
			return err
		}
		text, err := json.Marshal(o)
		if err == nil && (len(fds) > 0 || !bytes.Equal(text, t.text)) {
			err = sendOrder(control, o, fds)
		}
		closeAll(fds)
		if err != nil {
			return err
		}
		t.text, more = text, len(fds) == maxNew
		clear(t.has)
		for _, pl := range o.Places {
			t.has[pl.ID] = true
		}
	}
	return nil
}

// order is the next one for a process, with the sockets that it brings: copies, which
// nobody closes meanwhile.
func (k *Keeper) order(t *told) (*order, []int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := &order{Feed: k.feed}
	o.Resolvers = numbered(o.Resolvers)
	var fresh []place
	var fds []int
	for _, s := range k.sockets {
		pl := place{s.id, s.Network, s.UDP}
		if t.has[s.id] {
			o.Places = append(o.Places, pl)
			continue
		}
		if len(fresh) == maxNew {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeAll(fds)
			return nil, nil, err
		}
		fresh, fds = append(fresh, pl), append(fds, fd)
	}
	o.Places, o.New = slices.Concat(o.Places, fresh), len(fresh)
	return o, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
