package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// promise is what one of uWSGI's documents promises, with inis of the options
// and the shape of those that it shows. The documents' folders are below /run/t.
type promise struct {
	what    string            // the test's name
	emperor string            // the emperor's ini; empty: plainEmperor
	environ []string          // of the emperor, beside the usual
	before  string            // a shell script, in /run/t, before the emperor starts
	files   map[string]string // by their paths below /run/t
	acts    []act
}

// plainEmperor is what most of the documents begin with.
const plainEmperor = "[uwsgi]\nemperor = /run/t/vassals\n"

// perlHello is the app of the documents' psgi vassals.
const perlHello = "my $app = sub { return ['200', ['Content-Type' => 'text/html'], ['Hello World']]; };\n"

// act is a thing that is done or expected, after those before it.
type act func(s *witness)

// witness sees whether a promise is kept.
type witness struct {
	*realm
	pids map[string]int // of the apps, when an act has last seen them
	told map[string]int // how far in the emperor's log the acts are, by vassal
}

// keep checks promises, each in a world of its own. What the emperor leaves
// behind when it stops fails the test.
func keep(t *testing.T, promises []promise) {
	t.Helper()
	t.Parallel()
	for _, p := range promises {
		t.Run(p.what, func(t *testing.T) {
			t.Parallel()
			ini := p.emperor
			if ini == "" {
				ini = plainEmperor
			}
			s := &witness{realm: layRealm(t, nettest.NewWorld(t), "emperor", ini), pids: map[string]int{}, told: map[string]int{}}
			s.Run(t, "sh", "-e", "-c", "cd /run/t\n"+p.before)
			for path, text := range p.files {
				s.write(realmDir+"/"+path, text)
			}
			s.environ = p.environ
			s.start()
			for _, do := range p.acts {
				do(s)
			}
			s.realm.stop(syscall.SIGTERM)
		})
	}
}

// acts are several as one.
func acts(all ...act) act {
	return func(s *witness) {
		for _, do := range all {
			do(s)
		}
	}
}

// runs waits until vassals run.
func runs(vassals ...string) act {
	return func(s *witness) {
		s.t.Helper()
		for _, name := range vassals {
			s.pids[name] = s.awaitState(name, emperor.Running).PID
		}
	}
}

// anew waits until vassals run as other processes than before.
func anew(vassals ...string) act {
	return func(s *witness) {
		s.t.Helper()
		for _, name := range vassals {
			s.pids[name] = s.await(name, "is a new process", func(now emperor.Status) bool {
				return now.State == emperor.Running && now.PID != s.pids[name]
			}).PID
		}
	}
}

// same checks that a vassal is still the process that it was.
func same(vassal string) act {
	return func(s *witness) {
		s.t.Helper()
		if now := s.ps(vassal); now.State != emperor.Running || now.PID != s.pids[vassal] {
			s.t.Errorf("the pid was %d, and now: %+v", s.pids[vassal], now)
		}
	}
}

// loyal waits until a vassal is loyal.
func loyal(vassal string) act {
	return func(s *witness) {
		s.t.Helper()
		s.await(vassal, "is loyal", func(now emperor.Status) bool { return now.Loyal })
	}
}

// gone waits until there is no such vassal.
func gone(vassal string) act {
	return func(s *witness) {
		s.t.Helper()
		s.await(vassal, "is gone", func(now emperor.Status) bool { return now.Name == "" })
	}
}

// is waits for a state of a vassal, and for a text in its error.
func is(vassal string, state emperor.State, why string) act {
	return func(s *witness) {
		s.t.Helper()
		s.await(vassal, "is "+string(state)+": "+why, func(now emperor.Status) bool {
			return now.State == state && strings.Contains(now.Error, why)
		})
	}
}

// says waits for lines of a vassal's app, each after those waited for before.
func says(vassal string, lines ...string) act {
	return func(s *witness) {
		s.t.Helper()
		for _, line := range lines {
			line = "\n" + vassal + " | " + line + "\n"
			s.logs(vassal, line)
		}
	}
}

// logs waits for a text in the emperor's log, after what was waited for before
// under the same name.
func (s *witness) logs(name, text string) {
	s.t.Helper()
	nettest.Eventually(s.t, patience, fmt.Sprintf("the log says %q", text), func() bool {
		log, err := os.ReadFile(s.log)
		if err != nil {
			s.t.Fatal(err)
		}
		at := strings.Index(string(log[s.told[name]:]), text)
		if at >= 0 {
			s.told[name] += at + len(text) - 1 // the line's end begins the next
		}
		return at >= 0
	})
}

// reports waits for a text in the emperor's own lines of its log.
func reports(text string) act {
	return func(s *witness) { s.t.Helper(); s.logs("", text) }
}

// holds waits until a file below /run/t has a text.
func holds(path, text string) act {
	return func(s *witness) {
		s.t.Helper()
		got := ""
		defer func() {
			if got != text {
				s.t.Logf("%s is\n%s", path, got)
			}
		}()
		nettest.Eventually(s.t, patience, path+" is as expected", func() bool {
			got = s.read(realmDir + "/" + path)
			return got == text
		})
	}
}

// writes writes a file below /run/t.
func writes(path, text string) act {
	return func(s *witness) { s.t.Helper(); s.write(realmDir+"/"+path, text) }
}

// does runs a shell script on the host, in /run/t.
func does(script string) act {
	return func(s *witness) { s.t.Helper(); s.Run(s.t, "sh", "-e", "-c", "cd /run/t\n"+script) }
}

// touches is what the documents call a reload.
func touches(vassal string) act { return does("touch vassals/" + vassal + ".ini") }

// removes removes a vassal's ini and waits until the vassal has gone with it.
func removes(vassal string) act { return acts(does("rm vassals/"+vassal+".ini"), gone(vassal)) }

// dies kills a vassal's app.
func dies(vassal string) act {
	return func(s *witness) { s.t.Helper(); s.kill(s.pids[vassal]) }
}

// signals sends a signal to the emperor.
func signals(sig syscall.Signal) act {
	return func(s *witness) {
		s.t.Helper()
		if err := s.cmd.Process.Signal(sig); err != nil {
			s.t.Fatal(err)
		}
	}
}

// prints waits until a shell script on the host, in /run/t, prints a text.
func prints(script, text string) act {
	return func(s *witness) { s.t.Helper(); s.shows(text, "sh", "-c", "cd /run/t\n"+script) }
}

// inside is prints for a script in the namespaces of a vassal's app.
func inside(vassal, script, text string) act {
	return func(s *witness) {
		s.t.Helper()
		s.shows(text, "nsenter", "-t", strconv.Itoa(s.pids[vassal]), "-a", "sh", "-c", script)
	}
}

func (s *witness) shows(text string, command ...string) {
	s.t.Helper()
	var got string
	var err error
	defer func() {
		if got != text {
			s.t.Logf("want %q; %q (%v)", text, got, err)
		}
	}()
	nettest.Eventually(s.t, patience, fmt.Sprintf("%q prints it", command), func() bool {
		got, err = s.Try(s.t, command[0], command[1:]...)
		return got == text
	})
}

// serves waits until somebody answers a request for / with a page: the psgi app
// behind a unix socket, or whoever serves HTTP at HOST:PORT.
func serves(address, page string) act {
	return func(s *witness) {
		s.t.Helper()
		var got string
		var err error
		defer func() {
			if !strings.HasSuffix(got, page) {
				s.t.Logf("%s answered %q (%v)", address, got, err)
			}
		}()
		nettest.Eventually(s.t, patience, fmt.Sprintf("%s answers %q", address, page), func() bool {
			got, err = s.request(address)
			return err == nil && strings.HasSuffix(got, page)
		})
	}
}

// request asks for / once, by the protocol of the address.
func (s *witness) request(address string) (string, error) {
	if strings.HasPrefix(address, "/") {
		return uwsgiGet(s.Path(address), "/")
	}
	client := clientIn(s.Host)
	client.Timeout = patience
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return resp.Status + "\n" + string(page), err
}
