package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/tuntap"
)

// An app under another uid reads its resolv.conf, also when the emperor was
// started with a strict umask.
func TestResolvConfIsForEveryUID(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // the process's: not beside parallel tests
	r := &runner{instance: &emperor.Instance{Runtime: t.TempDir()}}
	const want = "nameserver 198.51.100.2\nnameserver 2001:db8::2\n"
	path, err := r.writeResolv("fief0", want)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("got %q, want %q", text, want)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != 0o644 {
		t.Errorf("mode %v, want readable by all", st.Mode())
	}
}

// What the ini may ask for is what the router takes.
func TestThreadsThatTheRouterTakes(t *testing.T) {
	if emperor.MaxThreads != tuntap.MaxThreads {
		t.Errorf("up to %d in the ini, up to %d in the router", emperor.MaxThreads, tuntap.MaxThreads)
	}
}
