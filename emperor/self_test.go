package emperor

import (
	"os"
	"testing"
)

func TestSelf(t *testing.T) {
	r := newRealm(t, nil)
	s, err := r.Client.Self(t.Context())
	if err != nil || s.PID != os.Getpid() || s.Goroutines < 2 {
		t.Errorf("%+v, %v; the emperor's pid is %d", s, err, os.Getpid())
	}
}
