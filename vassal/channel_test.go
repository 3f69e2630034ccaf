package vassal

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// talk makes a channel, and the vassal's end as a descriptor.
func talk(t *testing.T) (*Channel, int) {
	t.Helper()
	c, end, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end.Close() })
	return c, int(end.Fd())
}

// hear collects what a vassal says, in the background.
func hear(t *testing.T, c *Channel) (heard chan Notice, ended chan error) {
	heard, ended = make(chan Notice, 4096), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { ended <- c.Listen(func(n Notice) { heard <- n }) })
	t.Cleanup(func() { _ = c.close(); wg.Wait() })
	return heard, ended
}

func next(t *testing.T, heard chan Notice) Notice {
	t.Helper()
	select {
	case n := <-heard:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is heard")
		return 0
	}
}

func say(t *testing.T, fd int, b ...byte) {
	t.Helper()
	if _, err := unix.Write(fd, b); err != nil {
		t.Fatal(err)
	}
}

func TestChannelOrders(t *testing.T) {
	c, fd := talk(t)
	defer c.close()
	orders := []Order{OrderStop, OrderReload, OrderStopGently}
	for _, o := range orders {
		if err := c.Order(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range orders {
		b := make([]byte, 8)
		if n, err := unix.Read(fd, b); n != 1 || err != nil || Order(b[0]) != want {
			t.Errorf("read %v, %v, want %d alone", b[:n], err, want)
		}
	}
}

// Every byte comes as it was said, alone, in a crowd, and after nothing.
func TestChannelNotices(t *testing.T) {
	c, fd := talk(t)
	heard, _ := hear(t, c)
	for b := range 256 {
		say(t, fd, byte(b))
		if b%50 == 0 {
			say(t, fd) // an empty datagram is no end
		}
	}
	for b := range 256 {
		if n := next(t, heard); n != Notice(b) {
			t.Fatalf("heard %d, want %d", n, b)
		}
	}
	say(t, fd, 1, 5, 17)
	for _, want := range []Notice{NoticeReady, NoticeAccepting, NoticeLoyal} {
		if n := next(t, heard); n != want {
			t.Errorf("heard %d, want %d", n, want)
		}
	}
}

func TestChannelTakesNoMoreThanItsBudget(t *testing.T) {
	c, fd := talk(t)
	heard, _ := hear(t, c)
	const windows = 4
	began := time.Now()
	for range windows*noticeBudget + 1 {
		say(t, fd, byte(NoticeHeartbeat)) // waits whenever the buffer is full
	}
	for range windows*noticeBudget + 1 {
		next(t, heard)
	}
	if took := time.Since(began); took < (windows-1)*noticeWindow {
		t.Errorf("%d bytes were taken within %v", windows*noticeBudget, took)
	}
}

func TestChannelCutsLongMessages(t *testing.T) {
	c, fd := talk(t)
	heard, _ := hear(t, c)
	say(t, fd, []byte(strings.Repeat("x", 10000))...)
	say(t, fd, byte(NoticeLoyal))
	for range maxNotices {
		if n := next(t, heard); n != 'x' {
			t.Fatalf("heard %d", n)
		}
	}
	if n := next(t, heard); n != NoticeLoyal {
		t.Errorf("after the long message: %d", n)
	}
}

// A vassal that never reads costs an error, not the emperor's time.
func TestChannelOrdersNeverBlock(t *testing.T) {
	c, _ := talk(t)
	defer c.close()
	for range 100_000 {
		if err := c.Order(OrderReload); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("100,000 orders fit")
}

func TestChannelCloseEndsListening(t *testing.T) {
	for name, fill := range map[string]int{"silent": 0, "in the pause of a flood": 200} {
		t.Run(name, func(t *testing.T) {
			c, fd := talk(t)
			heard, ended := hear(t, c)
			for range fill {
				say(t, fd, 1)
			}
			for range min(fill, noticeBudget) {
				next(t, heard)
			}
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it listens on")
			}
			if c.Order(OrderStop) == nil {
				t.Error("an order went through afterwards")
			}
		})
	}
}

// A vassal that turns its socket away is not heard any more, once.
func TestChannelBrokenByTheVassal(t *testing.T) {
	c, fd := talk(t)
	_, ended := hear(t, c)
	if err := c.Order(OrderReload); err != nil { // unread: the kernel tells of its loss
		t.Fatal(err)
	}
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	name := &unix.SockaddrUnix{Name: "@fiefdom-" + t.Name()}
	if err := errors.Join(unix.Bind(other, name), unix.Connect(fd, name)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, unix.ECONNRESET) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it listens on")
	}
	if err := c.Order(OrderStop); !errors.Is(err, unix.EPERM) {
		t.Errorf("an order afterwards: %v", err)
	}
}

// The promise that Channel's comment makes: no end of file for the vassal when
// the emperor is gone, no hang-up, an error for what it says.
func TestChannelOutlivesTheEmperor(t *testing.T) {
	c, fd := talk(t)
	if err := c.Order(OrderReload); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); n != 1 || err != nil {
		t.Errorf("the last order: %d, %v", n, err)
	}
	if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("then it reads %d, %v", n, err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	if n, err := unix.Poll(poll, 0); n != 0 || err != nil {
		t.Errorf("poll sees %x, %v", poll[0].Revents, err)
	}
	if _, err := unix.Write(fd, []byte{26}); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("what it says: %v", err)
	}
	if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after that it reads %d, %v", n, err)
	}
}

func TestChannelDropsDescriptors(t *testing.T) {
	c, fd := talk(t)
	heard, _ := hear(t, c)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = unix.Sendmsg(fd, []byte{17}, unix.UnixRights(int(w.Fd())), nil, 0)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	next(t, heard)
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil {
		t.Errorf("somebody holds the descriptor: %q, %v", b, err)
	}
}

// The app has its channel, and nothing else has it.
func TestStartWithChannel(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	t.Setenv("UWSGI_EMPEROR_FD", "7") // of the emperor's own emperor
	t.Setenv("UWSGI_EMPEROR_FD_CONFIG", "8")
	const script = `echo "fds: $(ls /proc/self/fd | tr '\n' ' ')"; env | grep ^UWSGI; [ -z "$UWSGI_EMPEROR_FD" ] || { printf "\021" >&4; od -An -tu1 -N1 <&4; }; true`
	for name, tc := range map[string]struct {
		protocol, reaper bool
		want             string
	}{
		"speaks":                      {true, false, "hook 1\nfds: 0 1 2 3 4 \nUWSGI_EMPEROR_FD=4\n   2\n"},
		"speaks, in a pid namespace":  {true, true, "hook 1\nfds: 0 1 2 3 4 \nUWSGI_EMPEROR_FD=4\n   2\n"},
		"does not speak":              {false, false, "hook 1\nfds: 0 1 2 3 \n"},
		"does not speak, in a pid ns": {false, true, "hook 1\nfds: 0 1 2 3 \n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(script)
			p.Protocol, p.Reaper = tc.protocol, tc.reaper
			p.Hooks = []Hook{{Phase: AsUser, Action: "exec", Args: `[ -e /proc/self/fd/4 ]; echo hook $?`}}
			l := Launch{Plan: p}
			if tc.reaper {
				l.Plan.Mounts, l.Plan.Proc, l.Namespaces = true, true, unix.CLONE_NEWPID|unix.CLONE_NEWNS
			}
			s := startApp(t, j, l)
			if (s.Channel != nil) != tc.protocol {
				t.Fatalf("channel: %v", s.Channel)
			}
			if tc.protocol {
				heard, _ := hear(t, s.Channel)
				if n := next(t, heard); n != NoticeLoyal {
					t.Errorf("heard %d", n)
				}
				if err := s.Channel.Order(OrderStopGently); err != nil {
					t.Error(err)
				}
			}
			if out, exit := s.end(t); out != tc.want || exit.Code != 0 {
				t.Errorf("got %q, %v, want %q", out, exit, tc.want)
			}
		})
	}
}

func TestStartThatFailsClosesTheChannel(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	before := descriptors(t)
	p := planOf("true")
	p.Protocol, p.Args = true, []string{"/no/such/program"}
	if _, err := tryStart(t, j, Launch{Plan: p}); err == nil {
		t.Fatal("it started")
	}
	if after := descriptors(t); after != before+1 { // the reader of tryStart's pipe
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
