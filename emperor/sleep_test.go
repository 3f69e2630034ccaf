package emperor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// porter is an app that answers each connection with its pid, and does what it
// is told there. It finds its socket as its descriptor 0.
const porter = `import os, signal, socket
s = socket.socket(fileno=0)
fd = int(os.environ.get('UWSGI_EMPEROR_FD', -1))
def leave(*_): os._exit(0)
signal.signal(signal.SIGTERM, leave)
while True:
    c, _ = s.accept()
    word = c.recv(100).decode().strip()
    c.sendall(b'%d\n' % os.getpid())
    c.close()
    if word == 'leave': os._exit(0)
    if word == 'die': os._exit(3)
    if word == 'exile': os._exit(26)
    if word == 'tired':
        os.write(fd, bytes([22])) ; os.read(fd, 1) ; os._exit(0)
`

// porters is a realm whose vassals are porters, each with its socket in doors.
type porters struct {
	*realm
	script, doors string
}

func newPorters(t *testing.T, change func(*Emperor)) *porters {
	t.Helper()
	dir := sharedDir(t)
	p := &porters{script: filepath.Join(dir, "porter.py"), doors: dir}
	write(t, p.script, porter)
	p.realm = newRealm(t, func(e *Emperor) {
		e.Config.OnDemand.Directory = dir
		if change != nil {
			change(e)
		}
	})
	return p
}

func (p *porters) hire(t *testing.T, name, more string) {
	t.Helper()
	p.write(t, name, "[uwsgi]\ncommand = /usr/bin/python3 -S "+p.script+"\n"+more)
}

func (p *porters) door(name string) string { return filepath.Join(p.doors, name+".socket") }

// say connects, says a word and returns the answer: the app's pid.
func (p *porters) say(name, word string) (int, error) {
	c, err := net.Dial("unix", p.door(name))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(c, word); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

func (p *porters) ask(t *testing.T, name, word string) int {
	t.Helper()
	pid, err := p.say(name, word)
	if err != nil {
		t.Fatalf("%s, asked to %q: %v", name, word, err)
	}
	return pid
}

// An on demand vassal from its first sleep to its end.
func TestSleepAndWake(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	p := newPorters(t, nil)
	p.hire(t, "blog", "emperor-protocol = true\nreload-mercy = 0\n")
	asleep := func(what string) Status {
		t.Helper()
		return p.await(t, "blog", "sleeps "+what, func(s Status) bool { return s.State == Sleeping && s.PID == 0 })
	}
	if s := asleep("at first"); s.Restarts != 0 || s.Socket != p.door("blog") || s.Error != "" {
		t.Errorf("%+v", s)
	}
	first := p.ask(t, "blog", "")
	if s := p.awaitState(t, "blog", Running); s.PID != first {
		t.Errorf("%+v, it says %d", s, first)
	}
	if again := p.ask(t, "blog", ""); again != first {
		t.Errorf("pid %d, then %d", first, again)
	}
	for _, word := range []string{"leave", "tired", "leave"} {
		p.ask(t, "blog", word)
		s := asleep("after " + word)
		if s.Error != "" {
			t.Errorf("%+v", s)
		}
		if pid := p.ask(t, "blog", ""); pid == first {
			t.Errorf("after %q it has the pid of before", word)
		}
	}
	// Dead, it is awake again as soon as somebody wants it.
	p.ask(t, "blog", "die")
	p.await(t, "blog", "says why", func(s Status) bool { return s.State == Sleeping && strings.Contains(s.Error, "exit code 3") })
	p.ask(t, "blog", "")
	if s := p.awaitState(t, "blog", Running); s.Error != "" {
		t.Errorf("%+v", s)
	}
	p.end()
	if _, err := os.Lstat(p.door("blog")); err == nil {
		t.Error("its socket is left")
	}
}

// An operator's words to a vassal with a door.
func TestWordsForTheSleeping(t *testing.T) {
	p := newPorters(t, nil)
	p.hire(t, "blog", "")
	p.awaitState(t, "blog", Sleeping)
	pid := 0
	for _, step := range []struct {
		word  string
		state State
	}{
		{"reload", Sleeping},
		{"start", Running},
		{"reload", Running},
		{"stop", Stopped},
		{"reload", Sleeping},
		{"restart", Running},
		{"restart", Running},
		{"stop", Stopped},
		{"start", Running},
		{"stop", Stopped},
	} {
		s, err := p.Do(t.Context(), "blog", step.word)
		if err != nil || s.State != step.state || s.PID == pid && pid != 0 {
			t.Errorf("%s: %+v, %v; before pid %d", step.word, s, err, pid)
		}
		pid = s.PID
		if step.state != Stopped {
			continue
		}
		nettest.Eventually(t, 10*time.Second, "its socket goes while it is stopped", func() bool {
			_, err := os.Lstat(p.door("blog"))
			return os.IsNotExist(err) //nolint:forbidigo // of this very call
		})
	}
	if _, err := p.say("blog", ""); err == nil {
		t.Error("a stopped vassal was reached")
	}
}

func TestInisOfTheSleeping(t *testing.T) {
	p := newPorters(t, func(e *Emperor) { e.Config.OnDemand.Extension = ".socket" })
	point := func(name, to string) {
		t.Helper()
		tmp := filepath.Join(filepath.Dir(p.dir), "door.new")
		write(t, tmp, to+"\n")
		if err := os.Rename(tmp, filepath.Join(p.dir, name+".ini.socket")); err != nil {
			t.Fatal(err)
		}
	}
	point("blog", p.door("blog"))
	p.hire(t, "blog", "")
	p.awaitState(t, "blog", Sleeping)

	// A bad ini is told, and does not keep the good one from waking.
	p.hire(t, "blog", "umask = 9\n")
	p.await(t, "blog", "has an error", func(s Status) bool { return s.State == Sleeping && strings.Contains(s.Error, "blog.ini:3: ") })
	p.ask(t, "blog", "leave")
	p.awaitState(t, "blog", Sleeping)
	p.hire(t, "blog", "env = NEW=1\n")
	if s, err := p.Do(t.Context(), "blog", "reload"); err != nil || s.State != Sleeping || s.Error != "" {
		t.Errorf("%+v, %v", s, err)
	}
	pid := p.ask(t, "blog", "")
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || !strings.Contains(string(b), "NEW=1") {
		t.Errorf("the app has not the new ini: %q, %v", b, err)
	}

	// Another address: the app moves there. None: it runs at once. One again: it sleeps.
	point("blog", p.door("shop"))
	p.await(t, "blog", "moves", func(s Status) bool { return s.State == Running && s.PID != pid && s.Socket == p.door("shop") })
	if moved := p.ask(t, "shop", ""); moved == pid {
		t.Error("the process of before is at the new address")
	}
	if _, err := p.say("blog", ""); err == nil {
		t.Error("it is still at the old address")
	}
	point("blog", "a:b")
	p.await(t, "blog", "has a bad address", func(s Status) bool { return s.State == Running && strings.Contains(s.Error, "blog.ini.socket: ") })
	p.write(t, "blog", stays)
	if err := os.Remove(filepath.Join(p.dir, "blog.ini.socket")); err != nil {
		t.Fatal(err)
	}
	p.await(t, "blog", "runs without a socket", func(s Status) bool { return s.State == Running && s.Socket == "" && s.Error == "" })

	// A door that cannot be opened is tried again.
	point("shop", p.doors+"/later/shop.socket")
	p.hire(t, "shop", "")
	p.await(t, "shop", "waits for its folder", func(s Status) bool { return s.State == Backoff && strings.Contains(s.Error, "later/shop.socket") })
	if err := os.Mkdir(p.doors+"/later", 0o755); err != nil {
		t.Fatal(err)
	}
	s := p.await(t, "shop", "sleeps behind it", func(s Status) bool {
		_, err := os.Stat(p.doors + "/later/shop.socket")
		return s.State == Sleeping && s.Error == "" && err == nil
	})
	if err := os.Remove(s.File); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 10*time.Second, "its socket goes with its ini", func() bool {
		_, err := os.Lstat(p.doors + "/later/shop.socket")
		return err != nil
	})
}

// Many at once wake it once, and none of them is lost.
func TestManyAtTheDoor(t *testing.T) {
	p := newPorters(t, func(e *Emperor) { e.Config.Throttle, e.Config.NoBlacklist = time.Millisecond, true })
	p.hire(t, "blog", "")
	p.awaitState(t, "blog", Sleeping)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := p.say("blog", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := p.awaitState(t, "blog", Running); s.Restarts != 0 {
		t.Errorf("%d restarts", s.Restarts)
	}
	// One after another, while it comes and goes.
	for i := range 30 {
		what := []string{"", "leave", "die"}[i%3]
		if i != 11 {
			p.ask(t, "blog", what)
			continue
		}
		p.hire(t, "blog", "env = A=1\n")
		nettest.Eventually(t, 20*time.Second, "the ini is read", func() bool {
			is := make(chan bool, 1)
			p.call(func() { is <- slices.Contains(p.vassals["blog"].config.Env, "A=1") })
			return <-is
		})
		p.await(t, "blog", "has ended as it was", func(s Status) bool { return s.State != Stopping })
		nettest.Eventually(t, 10*time.Second, "who came to the old one is answered by the new", func() bool {
			_, err := p.say("blog", what)
			return err == nil
		})
	}
	p.await(t, "blog", "comes to rest", func(s Status) bool { return s.State == Running || s.State == Sleeping })
}

// One that ends without answering is not started without end.
func TestWhoNeverAnswersBacksOff(t *testing.T) {
	for name, command := range map[string]string{"ends well": "/bin/true", "fails": "/bin/false", "cannot start": "/no/such/program"} {
		t.Run(name, func(t *testing.T) {
			p := newPorters(t, nil)
			p.write(t, "blog", "[uwsgi]\ncommand = "+command+"\n")
			p.awaitState(t, "blog", Sleeping)
			c, err := net.Dial("unix", p.door("blog"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p.await(t, "blog", "backs off", func(s Status) bool { return s.State == Backoff && s.Error != "" })
			if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF { //nolint:errorlint // a net.Conn's own
				t.Errorf("who waits was sent away: %v", err)
			}
			p.write(t, "blog", "[uwsgi]\ncommand = /usr/bin/python3 -S "+p.script+"\n")
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(c, "")
			if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
				t.Errorf("who waited was not answered in the end: %v", err)
			}
		})
	}
}

// A socket whose file somebody removed is made again.
func TestRemovedDoor(t *testing.T) {
	p := newPorters(t, func(e *Emperor) { e.Config.Freq = 20 * time.Millisecond })
	p.hire(t, "blog", "")
	p.awaitState(t, "blog", Sleeping)
	for range 3 {
		nettest.Eventually(t, 10*time.Second, "it has a socket", func() bool { return os.Remove(p.door("blog")) == nil })
	}
	nettest.Eventually(t, 10*time.Second, "it can be woken", func() bool {
		_, err := p.say("blog", "")
		return err == nil
	})
	p.end()
	if _, err := os.Lstat(p.door("blog")); err == nil {
		t.Error("its socket is left")
	}
}

func TestExileClosesTheDoor(t *testing.T) {
	p := newPorters(t, nil)
	p.hire(t, "blog", "emperor-protocol = true\nreload-mercy = 0\n")
	p.awaitState(t, "blog", Sleeping)
	p.ask(t, "blog", "exile")
	s := p.awaitState(t, "blog", Stopped)
	nettest.Eventually(t, 10*time.Second, "its socket goes", func() bool {
		_, err := os.Lstat(p.door("blog"))
		return err != nil
	})
	p.touch(t, s)
	p.awaitState(t, "blog", Sleeping)
	p.ask(t, "blog", "")
}
