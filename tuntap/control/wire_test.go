package control

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

func newTestPair(t *testing.T) (one, two *wire) {
	t.Helper()
	one, f, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	two, err = newWire(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.conn.Close(); two.conn.Close() })
	return one, two
}

func TestWireMessages(t *testing.T) {
	nettest.NoLeaks(t)
	one, two := newTestPair(t)
	sent := []order{{Serve: true}, {Snapshot: 7}, {Update: &tuntap.NetworkConfig{Name: strings.Repeat("x", 3<<20)}}, {Identified: &identity{Conn: 5, Vassal: "blog"}}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, o := range sent {
			if err := one.send(o); err != nil {
				t.Error(err)
			}
		}
		one.conn.Close()
	})
	for i := range sent {
		var o order
		files, err := two.receive(&o)
		if err != nil || len(files) != 0 {
			t.Fatalf("%d: %v, %v", i, files, err)
		}
		switch i {
		case 0:
			if !o.Serve {
				t.Errorf("%+v", o)
			}
		case 1:
			if o.Snapshot != 7 {
				t.Errorf("%+v", o)
			}
		case 2:
			if len(o.Update.Name) != 3<<20 {
				t.Errorf("%d bytes", len(o.Update.Name))
			}
		case 3:
			if o.Identified == nil || o.Identified.Vassal != "blog" {
				t.Errorf("%+v", o)
			}
		}
	}
	if _, err := two.receive(new(order)); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	wg.Wait()
}

func TestWireDescriptors(t *testing.T) {
	nettest.NoLeaks(t)
	one, two := newTestPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := descriptor(w)
	if err != nil {
		t.Fatal(err)
	}
	// Messages without descriptors on both sides: they stay with their own.
	for _, fds := range [][]int{nil, {fd, 0, 1}, nil} {
		if err := one.send(order{Serve: true}, fds...); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	for i, want := range []int{0, 3, 0} {
		files, err := two.receive(new(order))
		if err != nil || len(files) != want {
			t.Fatalf("%d: %d descriptors, %v", i, len(files), err)
		}
		if want == 3 {
			if flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %#x, %v", flags, err)
			}
			if _, err := files[0].WriteString("x"); err != nil {
				t.Error(err)
			}
		}
		closeAll(files)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWireNonsense(t *testing.T) {
	length := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	for name, tc := range map[string]struct {
		bytes []byte
		want  error // nil: any
	}{
		"nothing":     {nil, io.EOF},
		"half a head": {[]byte{1, 0}, io.ErrUnexpectedEOF},
		"half a body": {append(length(10), "{}"...), io.ErrUnexpectedEOF},
		"too long":    {length(maxMessage + 1), errTooLong},
		"the most":    {length(1<<32 - 1), errTooLong},
		"no JSON":     {append(length(2), "{x"...), nil},
		"empty":       {length(0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			one, two := newTestPair(t)
			// With descriptors, which must not be lost.
			if len(tc.bytes) > 0 {
				if _, _, err := one.conn.WriteMsgUnix(tc.bytes, unix.UnixRights(0, 1), nil); err != nil {
					t.Fatal(err)
				}
			}
			one.conn.Close()
			files, err := two.receive(new(order))
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			closeAll(files)
		})
	}
}

func TestWireInPieces(t *testing.T) {
	one, two := newTestPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, b := range append(binary.LittleEndian.AppendUint32(nil, 14), `{"serve":true}`...) {
			if _, err := one.conn.Write([]byte{b}); err != nil {
				t.Error(err)
			}
		}
	}()
	var o order
	if _, err := two.receive(&o); err != nil || !o.Serve {
		t.Errorf("%+v, %v", o, err)
	}
	<-done
}

// An end that does not read costs the other its patience, and the connection.
func TestWirePatience(t *testing.T) {
	one, _ := newTestPair(t)
	one.patience = 50 * time.Millisecond
	big := order{Update: &tuntap.NetworkConfig{Name: strings.Repeat("x", 8<<20)}}
	if err := one.send(big); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := one.send(order{Serve: true}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after half a message: %v", err)
	}
}

func TestWireConcurrentSends(t *testing.T) {
	one, two := newTestPair(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := one.send(order{Update: &tuntap.NetworkConfig{Name: strings.Repeat("x", 30000)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 400 {
		var o order
		if _, err := two.receive(&o); err != nil || len(o.Update.Name) != 30000 {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
