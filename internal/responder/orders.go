package responder

import (
	"encoding/json"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// order is what the keeper tells a process at a time.
type order struct {
	Feed
	Places []place `json:"places"` // all where questions come in; the others are closed
	New    int     `json:"new"`    // so many at their end are new: the message brings their sockets
}

// place is a socket as the process knows it.
type place struct {
	ID      uint64 `json:"id"` // no two sockets of a keeper have the same
	Network string `json:"network"`
	UDP     bool   `json:"udp"`
}

// maxNew is how many sockets an order brings; the kernel takes 253 (SCM_MAX_FD).
const maxNew = 200

// sendOrder sends a line with the sockets, which are the caller's as before.
func sendOrder(c *net.UnixConn, o *order, fds []int) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	n := 0
	if len(fds) > 0 { // they come with the first byte
		if n, _, err = c.WriteMsgUnix(line, unix.UnixRights(fds...), nil); err != nil {
			return err
		}
	}
	_, err = c.Write(line[n:])
	return err
}

// orders reads what the keeper tells, and the sockets that come with it.
type orders struct {
	conn    *net.UnixConn
	lines   *json.Decoder
	sockets []*os.File // that no order has taken yet, in their order
}

func newOrders(c *net.UnixConn) *orders {
	o := &orders{conn: c}
	o.lines = json.NewDecoder(o)
	return o
}

// Read is for the decoder.
func (o *orders) Read(b []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4*maxNew))
	n, rn, _, _, err := o.conn.ReadMsgUnix(b, rights)
	if err != nil {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return n, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return n, err
		}
		for _, fd := range fds {
			o.sockets = append(o.sockets, os.NewFile(uintptr(fd), "socket"))
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// next waits for an order. Of its places the last ones have the sockets.
func (o *orders) next() (*order, []*os.File, error) {
	got := new(order)
	if err := o.lines.Decode(got); err != nil {
		return nil, nil, err
	}
	if got.New < 0 || got.New > len(got.Places) || got.New > len(o.sockets) {
		return nil, nil, errLost
	}
	brought := o.sockets[:got.New:got.New]
	o.sockets = o.sockets[got.New:]
	return got, brought, nil
}
