package vassal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
)

func TestProbeOptions(t *testing.T) {
	for text, want := range map[string]string{
		"ready = tcp:8000":                            "",
		"ready = http:8000/ping?a=b":                  "",
		"ready = http:8000":                           "",
		"ready = exec:test -e '/tmp/a b'":             "",
		"ready = delay:5":                             "",
		"health = exec:true\nhealth-interval = 500ms": "",
		"ready = udp:53":                              "want tcp:PORT",
		"ready = tcp:http":                            "no port",
		"ready = tcp:0":                               "no port",
		"ready = tcp:65536":                           "no port",
		"ready = http:80/a b":                         "printable",
		"ready = http:80/é":                           "printable",
		"ready = exec:":                               "no command",
		"ready = exec:'a":                             "quot",
		"ready = delay:soon":                          "no time",
		"ready = delay:61":                            "longer than ready-timeout",
		"health = delay:5":                            "says nothing",
		"health-interval = 0":                         "from 100ms",
		"health-count = 0":                            "from 1",
		"health = tcp:1\nhealth-interval = 1\nhealth-timeout = 2": "before the next",
		"ready = tcp:1\nattach-daemon = /bin/d":                   "exclude each other",
	} {
		t.Run(text, func(t *testing.T) {
			f := &ini.File{Name: "v.ini"}
			for i, line := range strings.Split("command = /bin/app\n"+text, "\n") {
				key, value, _ := strings.Cut(line, " = ")
				f.Pairs = append(f.Pairs, ini.Pair{Key: key, Value: value, Pos: ini.Pos{File: "v.ini", Line: i + 1}})
			}
			_, errs := Parse("v", f)
			if got := fmt.Sprint(errs); errs.Failed() != (want != "") || !strings.Contains(got, want) {
				t.Errorf("got %s, want an error with %q", got, want)
			}
		})
	}
}

// What a probe asks it asks in the jail: what listens outside is not seen.
func TestAsk(t *testing.T) {
	nettest.NoLeaks(t)
	j := newJail(t)
	if err := j.Do(func() error { return exec.Command("ip", "link", "set", "lo", "up").Run() }); err != nil {
		t.Fatal(err)
	}
	serve := func(answer string) *Probe {
		var l net.Listener
		if err := j.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if answer != "" {
					_, _ = c.Write([]byte(answer))
					c.Close()
				} else {
					defer c.Close() // when nobody listens any more
				}
			}
		}()
		return &Probe{Kind: ProbeHTTP, Port: uint16(l.Addr().(*net.TCPAddr).Port), Path: "/"}
	}
	outside, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	mute := serve("")
	for name, c := range map[string]struct {
		probe *Probe
		want  string
	}{
		"fine":         {serve("HTTP/1.1 200 OK\r\n\r\n"), ""},
		"elsewhere":    {serve("HTTP/1.0 302 Found\r\n\r\n"), ""},
		"broken":       {serve("HTTP/1.1 503 Busy\r\n\r\n"), "503 Busy"},
		"another":      {serve("220 smtp ready\r\n"), "HTTP"},
		"endless":      {serve(strings.Repeat("x", 100000)), "answer"},
		"mute by http": {mute, "in time"},
		"mute by tcp":  {&Probe{Kind: ProbeTCP, Port: mute.Port}, ""},
		"outside":      {&Probe{Kind: ProbeTCP, Port: uint16(outside.Addr().(*net.TCPAddr).Port)}, "refused"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := j.Ask(ctx, c.probe)
		cancel()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if name == "mute by http" && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
