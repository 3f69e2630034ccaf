package bounded

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// pair makes a connection with its two ends.
func pair(t *testing.T, l *Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func open(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return err != io.EOF //nolint:errorlint // of a bare connection
}

func TestNewcomerHasThePlaceOfTheSilent(t *testing.T) {
	nettest.NoLeaks(t)
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := Listen(inner, 3)
	first, served := pair(t, l)
	second, _ := pair(t, l)
	third, over := pair(t, l)
	l.Heard(served)
	over.Close()
	fourth, _ := pair(t, l) // in the third's place
	if !open(first) || !open(second) || open(third) || !open(fourth) {
		t.Fatal("with places left somebody was turned out, or a closed one is open")
	}
	l.Heard(over) // it has no place
	fifth, _ := pair(t, l)
	if open(second) || !open(first) || !open(fourth) || !open(fifth) {
		t.Error("it was not the one that had been silent for longest who was turned out")
	}
	for range 100 {
		pair(t, l)
	}
	if n := l.open.Len(); n != 3 {
		t.Errorf("%d are open", n)
	}
}
