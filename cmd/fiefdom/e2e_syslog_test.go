package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// Lines reach the syslog that the emperor's ini names, under names that no
// vassal can choose; one that takes nothing costs lines, which are counted, and
// no vassal its time.
func TestSyslog(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", logsEmperor+"log-syslog = true\nlog-syslog-address = /run/t/syslog\n")
	l := listenSyslog(t, r.Path("/run/t/syslog"))
	tell := r.fifo("/run/t/tell")
	r.drop("sshd", "[uwsgi]\nlog-syslog = Accepted\nlogto = /run/t/file\ncommand = /bin/sh -c \"while read line; do echo $line; done </run/t/tell\"\n")
	r.start()
	form := regexp.MustCompile(`^<30>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} (fiefdom/sshd|fiefdom\[[0-9]+\]): (.*)$`)
	fmt.Fprintln(tell, "one")
	seen := map[string]bool{}
	for !seen["fiefdom/sshd: one"] {
		message := l.next(t)
		m := form.FindStringSubmatch(message)
		if m == nil {
			t.Fatalf("message %q", message)
		}
		seen[m[1]+": "+m[2]] = true
		if strings.HasPrefix(m[1], "fiefdom[") && strings.Contains(m[2], `msg="emperor running"`) {
			seen["emperor"] = true
		}
	}
	if !seen["emperor"] {
		t.Errorf("the emperor's own lines are not among %v", seen)
	}
	nettest.Eventually(t, patience, "it is in the file too", func() bool { return r.read("/run/t/file") == "one\n" })
	if text, err := os.ReadFile(r.log); err != nil || strings.Contains(string(text), "| one") {
		t.Errorf("it is in the emperor's log, %v", err)
	}
	// Nobody reads any more.
	const count = 5000
	for i := range count {
		fmt.Fprintf(tell, "line %d %s\n", i, strings.Repeat("x", 200))
	}
	nettest.Eventually(t, patience, "the vassal has written all", func() bool {
		return strings.Contains(r.read("/run/t/file"), fmt.Sprintf("line %d ", count-1))
	})
	r.await("sshd", "has lost lines", func(s emperor.Status) bool { return s.Output.Syslog && s.Output.Lost.Lines > 0 })
	if out := r.mustRun("status", "sshd"); !strings.Contains(out, "log: /run/t/file, syslog, ") {
		t.Errorf("status:\n%s", out)
	}
	// The syslog is started anew at the same path.
	l.Close()
	os.Remove(r.Path("/run/t/syslog"))
	l = listenSyslog(t, r.Path("/run/t/syslog"))
	for !strings.Contains(l.next(t), "were lost here: ") { // and then it goes on
	}
	r.stop(syscall.SIGTERM)
}

// syslogListener is the machine's syslog in a test.
type syslogListener struct{ *net.UnixConn }

func listenSyslog(t *testing.T, path string) syslogListener {
	t.Helper()
	// The path may be too long for a socket's address.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return syslogListener{l}
}

func (l syslogListener) next(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := l.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
