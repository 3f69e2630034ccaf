package responder

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/internal/nettest"
)

const (
	bad  = "10.9.66.6"
	good = "10.9.0.8" // shop
)

// late is how much longer a good asker may wait than without an attack, of 100
// questions for the 99 that are answered soonest. The machine of an ordinary test
// run may be busy.
func late() time.Duration {
	if soaks() {
		return 20 * time.Millisecond
	}
	return 6 * time.Second
}

func soaks() bool { return os.Getenv("FIEFDOM_SOAK") == "1" }

// judges says whether times and memory mean something: the race detector makes of
// both what it likes.
func judges() bool { return soaks() || !nettest.Raced() }

// spell is how long a siege lasts.
func spell() time.Duration {
	if soaks() {
		return 20 * time.Second
	}
	return 2 * time.Second
}

// again is when a question is asked again.
const again = 300 * time.Millisecond

// retries is how often it is, before nobody answers.
func retries() int {
	if judges() {
		return 20
	}
	return 200
}

// silent is a resolver that answers nobody, which is where most can be held up.
func (r *rig) silent(t *testing.T) netip.AddrPort {
	t.Helper()
	var c net.PacketConn
	r.host.Do(t, func() {
		var err error
		if c, err = net.ListenPacket("udp", "127.0.0.1:53"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// cpu is the time that the process has used.
func (r *rig) cpu(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.pid.Load()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	user, uerr := strconv.Atoi(fields[11])
	system, serr := strconv.Atoi(fields[12])
	if err := errors.Join(uerr, serr); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// memory is what the process has in memory, in bytes.
func (r *rig) memory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.pid.Load()))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// Whatever one asker does, others are answered in time. // T52
func TestSiegeSoak(t *testing.T) {
	for name, attack := range map[string]func(*testing.T, *rig, <-chan struct{}) int{
		"50,000 questions a second": floodNames,
		"questions that nobody answers": func(t *testing.T, r *rig, over <-chan struct{}) int {
			return flood(t, r, over, func(i int) []byte { return packed(t, query("x"+strconv.Itoa(i)+".example.")) })
		},
		"messages that are none":        floodRubbish,
		"connections that are held":     hold,
		"questions that are cut by RST": reset,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, &land, bad, good)
			at := r.silent(t)
			r.Change(func(f *Feed) { f.Resolvers = []netip.AddrPort{at} })
			pid := r.pid.Load()
			before := p99(r.calm(t, time.Second))
			over := make(chan struct{})
			var wg sync.WaitGroup
			began, used, acts := time.Now(), r.cpu(t), 0
			wg.Go(func() { acts = attack(t, r, over) })
			took := p99(r.calm(t, spell()))
			close(over)
			wg.Wait()
			lasted := time.Since(began)
			t.Logf("%d acts in %s: others wait %s (p99; %s before), the process used %s and has %d MiB",
				acts, lasted.Round(time.Millisecond), took, before, r.cpu(t)-used, r.memory(t)>>20)
			if took > before+late() && judges() {
				t.Errorf("others wait %s, before it %s", took, before)
			}
			if r.memory(t) > 2*softMemory && judges() {
				t.Errorf("it has %d bytes", r.memory(t))
			}
			if r.pid.Load() != pid {
				t.Error("the process died")
			}
		})
	}
}

// calm asks now and then what one may ask, by UDP and TCP, and says how long each
// took. Every question has to be answered.
func (r *rig) calm(t *testing.T, spell time.Duration) (took []time.Duration) {
	t.Helper()
	c := r.dial(t, "udp", good)
	until := time.Now().Add(spell)
	for i := 0; time.Now().Before(until); i++ {
		ask := c
		began := time.Now()
		if i%10 == 9 {
			ask = r.dial(t, "tcp", good)
		}
		q := query("blog.")
		m, err := asks(ask, q, again)
		for n := 0; n < retries() && errors.Is(err, os.ErrDeadlineExceeded); n++ {
			m, err = asks(ask, q, again)
		}
		if err != nil || m.Id != q.Id || len(m.Answer) != 1 {
			t.Errorf("question %d: %v %v", i, m, err)
			return append(took, time.Since(began))
		}
		took = append(took, time.Since(began))
		if ask != c {
			ask.Close()
		}
		time.Sleep(2 * time.Millisecond) // the pace of a calm asker
	}
	return took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100]
}

func query(name string) *dns.Msg {
	q := new(dns.Msg)
	return q.SetQuestion(name, dns.TypeA)
}

func packed(t *testing.T, q *dns.Msg) []byte {
	b, err := q.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// flood sends 50,000 datagrams a second, if the machine lets it: no more at once
// than the kernel takes.
func flood(t *testing.T, r *rig, over <-chan struct{}, message func(i int) []byte) (n int) {
	c := r.dial(t, "udp", bad)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-tick.C:
		case <-over:
			return n
		}
		for due, most := int(time.Since(began).Seconds()*50_000), n+200; n < min(due, most); n++ {
			_, _ = c.Write(message(n)) // the socket may be full
		}
	}
}

func floodNames(t *testing.T, r *rig, over <-chan struct{}) int {
	b := packed(t, query("blog."))
	return flood(t, r, over, func(int) []byte { return b })
}

// floodRubbish sends names that point at themselves and at each other, cut and
// empty messages, and answers.
func floodRubbish(t *testing.T, r *rig, over <-chan struct{}) int {
	head := "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	loops := head + strings.Repeat("\xc0\x0e\xc0\x0c", 100)
	all := [][]byte{
		[]byte(head + "\xc0\x0c\x00\x01\x00\x01"), []byte(loops), []byte(head),
		{},
		[]byte("\x00"),
		[]byte(head + strings.Repeat("\x3f"+strings.Repeat("x", 63), 7)),
		[]byte("\x00\x01\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"),
		[]byte("\x00\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x01\x00\x01"),
	}
	return flood(t, r, over, func(i int) []byte { return all[i%len(all)] })
}

// hold keeps as many TCP connections as it gets, with half a question in each.
func hold(t *testing.T, r *rig, over <-chan struct{}) (n int) {
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for {
		select {
		case <-over:
			return n
		default:
		}
		c, err := r.try("tcp", bad)
		if err != nil {
			continue // it has as many as it may have
		}
		_, _ = c.Write([]byte{0, 40, 1, 2})
		if held, n = append(held, c), n+1; len(held) > 500 {
			held[0].Close()
			held = held[1:]
		}
	}
}

// reset cuts connections off in the middle of a question.
func reset(t *testing.T, r *rig, over <-chan struct{}) (n int) {
	b := packed(t, query("blog."))
	for {
		select {
		case <-over:
			return n
		default:
		}
		c, err := r.try("tcp", bad)
		if err != nil {
			continue
		}
		_, _ = c.Write(append([]byte{0, byte(len(b))}, b[:n%len(b)]...))
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		n++
	}
}

// A process that dies is started again, at the same sockets: what was asked
// meanwhile is answered late.
func TestDiesAndIsBack(t *testing.T) {
	r := newRig(t, &land, good)
	c := r.dial(t, "udp", good)
	for range 3 {
		pid := int(r.pid.Load())
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		q := query("blog.")
		if m, err := asks(c, q, 10*time.Second); err != nil || m.Id != q.Id || len(m.Answer) != 1 {
			t.Fatalf("%v, %v", m, err)
		}
		r.await(t)
		if now := int(r.pid.Load()); now == pid {
			t.Error("it is the same process")
		}
	}
}

// It has no rights, and what changes is in force soon.
func TestProcess(t *testing.T) {
	r := newRig(t, &land, good, "10.9.0.9", bad)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid.Load()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65521\t65521\t65521\t65521", "Gid:\t65521\t65521\t65521\t65521", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(b), want+"\n") {
			t.Errorf("its status has not %q:\n%s", want, b)
		}
	}
	c := r.dial(t, "udp", bad)
	is := func(want int) func() bool {
		return func() bool {
			m, err := asks(c, query("news.fiefdom.internal."), 5*time.Second)
			return err == nil && m.Rcode == want
		}
	}
	nettest.Eventually(t, 10*time.Second, "there is no news", is(dns.RcodeNameError))
	r.Change(func(f *Feed) {
		f.Vassals = append(slices.Clone(f.Vassals), Vassal{Name: "news", On: []Access{{"fief0", addrs("10.9.0.99")}}})
	})
	nettest.Eventually(t, 10*time.Second, "there is news", is(dns.RcodeSuccess))

	// Somebody of no network, by a source that he made up.
	r.jail.Run(t, "ip", "address", "add", "192.0.2.1/32", "dev", "eth0")
	r.host.Run(t, "ip", "route", "add", "192.0.2.1/32", "dev", "fief0")
	if m, err := asks(r.dial(t, "udp", "192.0.2.1"), query("blog."), 300*time.Millisecond); err == nil {
		t.Errorf("a stranger gets %v", m)
	}
	if c, err := r.try("tcp", "192.0.2.1"); err == nil { // else it was closed at once
		defer c.Close()
		if m, err := asks(c, query("blog."), time.Second); err == nil {
			t.Errorf("a stranger gets %v by TCP", m)
		}
	}
}
