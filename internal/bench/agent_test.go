package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// agentEnv makes the test binary an agent: the ends of a measurement are
// processes of their own, as apps are. Its value is "WORD ADDRESS:PORT TIME".
const agentEnv = "FIEFDOM_BENCH_AGENT"

const (
	payload = 64                     // bytes of a datagram
	silence = 300 * time.Millisecond // ends a receiver
)

// heard is an agent's answer, in JSON on its standard output.
type heard struct {
	Packets int
	Seconds float64
	P50     float64 // µs
	P99     float64
}

func TestMain(m *testing.M) {
	if order := os.Getenv(agentEnv); order != "" {
		if err := agent(order); err != nil {
			fmt.Fprintln(os.Stderr, order+":", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func agent(order string) error {
	var word, address, duration string
	if _, err := fmt.Sscan(order, &word, &address, &duration); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	span, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family(to), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	var answer heard
	switch word {
	case "receive", "echo":
		if err := listen(fd, to); err != nil {
			return err
		}
		if word == "echo" {
			return echo(fd)
		}
		answer, err = receive(fd)
	case "send", "ping":
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if word == "send" {
			answer = send(fd, span)
		} else {
			answer, err = ping(fd, span)
		}
	default:
		return errors.New("unknown word")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// listen binds a socket, and says that it did.
func listen(fd int, on netip.AddrPort) error {
	if err := unix.Bind(fd, sockaddr(on)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	fmt.Println("ready")
	return nil
}

func timeout(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// receive counts whole datagrams until there are no more, and the time from the
// first to the last (of every eight; asking for the time costs some too).
func receive(fd int) (h heard, err error) {
	var buf [2 * payload]byte
	var began time.Time
	if err := timeout(fd, 5*time.Second); err != nil { // for the first
		return h, err
	}
	for n := 0; ; {
		size, err := rawRead(fd, buf[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return h, nil
		case err != nil:
			return h, err
		case size != payload:
			continue
		}
		if n == 0 {
			began = time.Now()
			if err := timeout(fd, silence); err != nil {
				return h, err
			}
		} else if n%8 == 0 {
			h.Packets, h.Seconds = n, time.Since(began).Seconds()
		}
		n++
	}
}

// send sends as fast as it can. What the kernel refuses is not counted.
func send(fd int, d time.Duration) (h heard) {
	var buf [payload]byte
	began := time.Now()
	for n := 0; n%64 != 0 || time.Since(began) < d; n++ {
		if err := rawWrite(fd, buf[:]); err == nil {
			h.Packets++
		}
	}
	h.Seconds = time.Since(began).Seconds()
	return h
}

// echo sends back what comes from the first who sends, until it is killed.
func echo(fd int) error {
	var buf [payload]byte
	_, from, err := unix.Recvfrom(fd, buf[:], 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, from); err != nil {
		return err
	}
	if err := rawWrite(fd, buf[:]); err != nil {
		return err
	}
	for {
		_, err := rawRead(fd, buf[:])
		if err == nil {
			err = rawWrite(fd, buf[:])
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// rawRead and rawWrite block as a plain C program does. With the runtime's own
// calls, or with threads beside this one, the kernel's scheduler puts both ends
// of a ping-pong on one CPU where it can, which is another measurement: 12 µs
// instead of 48 over veth on a machine with two.
func rawRead(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), ok(errno)
}

func rawWrite(fd int, b []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return ok(errno)
}

func ok(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// ping waits for the echo of each datagram before it sends the next.
func ping(fd int, d time.Duration) (h heard, err error) {
	if err := timeout(fd, silence); err != nil {
		return h, err
	}
	var buf [payload]byte
	trips := make([]time.Duration, 0, 1<<20)
	for began := time.Now(); time.Since(began) < d && len(trips) < cap(trips); {
		sent := time.Now()
		if err := rawWrite(fd, buf[:]); err != nil {
			return h, err
		}
		if _, err := rawRead(fd, buf[:]); err == nil {
			trips = append(trips, time.Since(sent))
		}
	}
	if len(trips) == 0 || len(trips) < 100 && d >= time.Second { // in a smoke run the machine may be busy
		return h, fmt.Errorf("%d answers only", len(trips))
	}
	slices.Sort(trips)
	at := func(percent int) float64 { return float64(trips[len(trips)*percent/100].Nanoseconds()) / 1000 }
	return heard{Packets: len(trips), P50: at(50), P99: at(99)}, nil
}

// answerOf is the agent's answer in what it printed.
func answerOf(out string) (h heard, err error) {
	_, text, found := strings.Cut(out, "{")
	if !found {
		return h, fmt.Errorf("an agent said %q", out)
	}
	return h, json.Unmarshal([]byte("{"+text), &h)
}
