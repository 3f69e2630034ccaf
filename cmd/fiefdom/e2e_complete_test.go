package main

import (
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// What the shells' completion asks the program for.
func TestCompletionOfNames(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	r.drop("shop", agentIni)
	r.start()
	r.reach("blog")
	r.reach("shop")
	for _, tt := range []struct {
		name string
		line []string
		want string
	}{
		{"a vassal", []string{"status", ""}, "blog\trunning\nshop\trunning\n:4\n"},
		{"one is enough", []string{"status", "blog", ""}, ":4\n"},
		{"further vassals", []string{"restart", "blog", ""}, "shop\trunning\n:4\n"},
		{"an ini", []string{"check", ""}, "ini\n:8\n"},
		{"an instance", []string{"ps", "--instance", ""}, "emperor\n:4\n"},
		{"of none that runs", []string{"status", "--instance", "other", ""}, ":4\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := r.Try(t, "sh", append([]string{"-c", `exec fiefdom __complete "$@" 2>/dev/null`, "sh"}, tt.line...)...)
			if err != nil || out != tt.want {
				t.Errorf("%v: %q, want %q", err, out, tt.want)
			}
		})
	}
	r.stop(syscall.SIGTERM)
}
