package vassal

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A socket where somebody listens is not taken, and stays his.
func TestSetnsSocketOfTheLiving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ns.socket")
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if s, err := serveNamespaces(&Isolation{Serve: path}, os.Getpid()); err == nil {
		s.close()
		t.Error("it took the place of a socket that somebody has")
	} else if !strings.Contains(err.Error(), "somebody else listens there") {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Errorf("who has it is not reached any more: %v", err)
	}
}
