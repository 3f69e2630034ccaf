package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What vassals wrote is shown by the next emperor as it was, with its times, and
// goes on from there; of vassals that are gone nobody keeps anything.
func TestOutputOutlivesItsEmperor(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor)
	tell := r.fifo("/run/t/tell")
	r.drop("blog", "[uwsgi]\nattach-daemon = echo up; exec sleep 1000\ncommand = /bin/sh -c \"while read line; do echo $line; done </run/t/tell\"\n")
	r.drop("shop", "[uwsgi]\ncommand = /bin/sh -c \"echo last words; exec sleep 1000\"\n")
	r.drop("mute", "[uwsgi]\ncommand = /bin/sleep 1000\n")
	r.start()
	told := func(name, last string) (text string) {
		r.t.Helper()
		nettest.Eventually(t, patience, name+" has said "+last, func() bool {
			text = r.mustRun("logs", "-t", name)
			return strings.HasSuffix(text, last+"\n")
		})
		return text
	}
	told("shop", "last words")
	r.mustRun("stop", "shop") // it has a note, and no process
	nettest.Eventually(t, patience, "the daemon has said it is up", func() bool { return strings.Contains(r.mustRun("logs", "blog"), "up\n") })
	follower, followed, _ := r.background("logs", "-f", "blog")
	n := 0
	for what, next := range map[string]func(){
		"an upgrade": func() { r.mustRun("upgrade") },
		"a kill":     func() { r.die(); r.start() },
	} {
		for range 3 {
			n++
			fmt.Fprintf(tell, "line %d\n", n)
			blog, shop := told("blog", fmt.Sprintf("line %d", n)), told("shop", "last words")
			next()
			r.awaitState("blog", emperor.Running)
			for name, before := range map[string]string{"blog": blog, "shop": shop, "mute": ""} {
				if now, _, _ := strings.Cut(r.mustRun("logs", "-t", name), "fiefdom:"); now != before { // a hint, of the mute one
					t.Errorf("%s after %s:\n%snot:\n%s", name, what, now, before)
				}
			}
			if s := r.ps("blog"); s.Output == nil || s.Output.Bytes == 0 {
				t.Errorf("after %s there are %+v bytes", what, s.Output)
			}
		}
	}
	fmt.Fprintln(tell, "end")
	told("blog", "end")
	nettest.Eventually(t, patience, "the follower has the end", func() bool { return strings.HasSuffix(followed(), "end\n") })
	if got, want := followed(), r.mustRun("logs", "blog"); got != want {
		t.Errorf("a follower has:\n%snot:\n%s", got, want)
	}
	if err := errors.Join(follower.Process.Signal(os.Interrupt), follower.Wait()); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"shop", "mute"} {
		r.remove(name)
		nettest.Eventually(t, patience, name+" is gone", func() bool { _, code := r.run("status", name); return code == exitNotFound })
	}
	for who, pid := range map[string]int{"emperor": r.cmdPID(), "vault": r.vaultPID()} {
		nettest.Eventually(t, patience, "one history is left with the "+who, func() bool { return r.histories(pid) == 1 })
	}
	r.stop(syscall.SIGTERM)
}

// histories counts the histories that a process has.
func (r *realm) histories(pid int) (n int) {
	r.t.Helper()
	folder := r.Path(fmt.Sprintf("/proc/%d/fd", pid))
	files, err := os.ReadDir(folder)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range files {
		if to, _ := os.Readlink(folder + "/" + f.Name()); strings.HasPrefix(to, "/memfd:history") {
			n++
		}
	}
	return n
}
