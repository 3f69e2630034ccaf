package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// An emperor that is killed leaves the sockets of on demand vassals behind, and
// the next goes on with them; whether a vassal runs or sleeps, connections wait
// there for him.
func TestDoorsSurviveTheEmperor(t *testing.T) {
	t.Parallel()
	const door = "/run/t/doors/blog.socket"
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-directory = /run/t/doors\n")
	r.Run(t, "mkdir", "/run/t/doors")
	r.write("/run/t/web.py", webServer)
	r.drop("blog", "[uwsgi]\ncommand = /usr/bin/python3 /run/t/web.py\nenv = IDLE=1000\nconfine = compat\n") // it tells its pid
	r.start()
	r.awaitState("blog", emperor.Sleeping)
	r.mustPage(door, "/")
	before := r.awaitState("blog", emperor.Running)
	r.die()
	if text := r.mustPage(door, "/"); !strings.HasPrefix(text, fmt.Sprint(before.PID, "-")) {
		t.Errorf("without an emperor: %q, it had pid %d", text, before.PID)
	}
	r.start()
	if now := r.awaitState("blog", emperor.Running); unlike(before, now) != "" {
		t.Errorf("under the next emperor: %s", unlike(before, now))
	}

	r.kill(before.PID)
	r.awaitState("blog", emperor.Sleeping)
	r.die()
	visitor, err := r.knock(door)
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	if err := visitor.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(visitor, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r.start()
	if page, err := io.ReadAll(visitor); err != nil || !strings.HasPrefix(string(page), "HTTP/1.0 200 ") {
		t.Errorf("who came while there was no emperor got %q, %v", page, err)
	}
	if now := r.awaitState("blog", emperor.Running); now.PID == before.PID || now.Addresses[0] != before.Addresses[0] {
		t.Errorf("under the next emperor: %+v, before %+v", now, before)
	}
	r.stop(syscall.SIGTERM)
	if r.exists(door) {
		t.Error("the socket outlived the emperor")
	}
}
