package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

const port = 5201

// limit is how long one measurement may take beyond its own time.
const limit = 15 * time.Second

// place is one end of a measurement.
type place struct {
	ns    *nettest.NS
	addrs [2]netip.Addr // by which the other end knows it: IPv4, IPv6
}

func (p place) at(family int) netip.AddrPort {
	return netip.AddrPortFrom(p.addrs[family], port)
}

// launch starts cmd in a namespace.
func launch(t *testing.T, ns *nettest.NS, cmd *exec.Cmd) (err error) {
	ns.Do(t, func() { err = cmd.Start() })
	return err
}

// end kills a process, and reaps it.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// output runs cmd in a namespace and returns what it prints.
func output(t *testing.T, ns *nettest.NS, cmd *exec.Cmd) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := launch(t, ns, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%v: %w: %s%s", cmd, err, errs.String(), out.String())
	}
	return out.String(), nil
}

// agentCmd is this binary as an agent.
func agentCmd(ctx context.Context, word string, to netip.AddrPort, d time.Duration) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	// One thread, undisturbed by the collector and by signals.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1", fmt.Sprintf("%s=%s %v %v", agentEnv, word, to, d))
	return cmd
}

// listener starts the agent that waits at the far end; rest is what it prints
// later.
func listener(ctx context.Context, t *testing.T, word string, at place, family int) (cmd *exec.Cmd, rest *bufio.Reader, err error) {
	cmd = agentCmd(ctx, word, at.at(family), 0)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := launch(t, at.ns, cmd); err != nil {
		return nil, nil, err
	}
	rest = bufio.NewReader(pipe)
	if _, err := rest.ReadString('\n'); err != nil {
		end(cmd)
		return nil, nil, fmt.Errorf("the agent for %s: %w", word, err)
	}
	return cmd, rest, nil
}

// udp is how many thousand datagrams arrive in a second while a sender sends at
// full speed: from the first to the last that arrives, so that a system that
// breaks under it is measured as long as it lives.
func udp(t *testing.T, from, to place, family int, d time.Duration) (kpps float64, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), d+limit)
	defer cancel()
	receiver, rest, err := listener(ctx, t, "receive", to, family)
	if err != nil {
		return 0, err
	}
	defer end(receiver)
	if _, err := output(t, from.ns, agentCmd(ctx, "send", to.at(family), d)); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(rest)
	if err != nil {
		return 0, err
	}
	got, err := answerOf(string(text))
	if err != nil {
		return 0, err
	}
	if got.Packets == 0 {
		return 0, errors.New("hardly a datagram arrived")
	}
	return float64(got.Packets) / got.Seconds / 1000, nil
}

// rtt is the round trip of a datagram between two processes.
func rtt(t *testing.T, from, to place, family int, d time.Duration) (heard, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d+limit)
	defer cancel()
	echo, _, err := listener(ctx, t, "echo", to, family)
	if err != nil {
		return heard{}, err
	}
	defer end(echo)
	out, err := output(t, from.ns, agentCmd(ctx, "ping", to.at(family), d))
	if err != nil {
		return heard{}, err
	}
	return answerOf(out)
}

// iperf is what of "iperf3 -J" we look at.
type iperf struct {
	End struct {
		Received struct {
			Bytes         float64 `json:"bytes"`
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Congestion string `json:"sender_tcp_congestion"`
	} `json:"end"`
	Error string `json:"error"`
}

// tcp is the throughput in Gbit/s, and what the whole machine's CPUs spent on a
// Gbit. It is iperf3's at the receiving end.
// Backwards, the one that is connected to sends: through NAT nobody outside can begin.
func tcp(t *testing.T, from, to place, family, streams int, d time.Duration, backwards bool) (gbps, cpu float64, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), d+limit)
	defer cancel()
	server := exec.CommandContext(ctx, "iperf3", "-s", "-1")
	if err := launch(t, to.ns, server); err != nil {
		return 0, 0, err
	}
	defer end(server)
	if err := listens(ctx, server.Process.Pid); err != nil {
		return 0, 0, err
	}
	before, err := busy()
	if err != nil {
		return 0, 0, err
	}
	args := []string{
		"-J", "-C", congestion, "-c", to.addrs[family].String(), "-P", strconv.Itoa(streams), "-t", strconv.Itoa(int(d.Seconds())),
	}
	if backwards {
		args = append(args, "-R")
	}
	out, err := output(t, from.ns, exec.CommandContext(ctx, "iperf3", args...))
	if err != nil {
		return 0, 0, err
	}
	after, err := busy()
	if err != nil {
		return 0, 0, err
	}
	var r iperf
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, 0, err
	}
	switch e := r.End; {
	case r.Error != "":
		return 0, 0, errors.New(r.Error)
	case e.Received.Bytes == 0:
		return 0, 0, errors.New("no byte arrived")
	case e.Congestion != congestion:
		return 0, 0, fmt.Errorf("the sender's congestion control was %q", e.Congestion)
	default:
		return e.Received.BitsPerSecond / 1e9, (after - before) / (e.Received.Bytes * 8 / 1e9), nil
	}
}

// listens waits until somebody listens in a process' network namespace.
func listens(ctx context.Context, pid int) error {
	for {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("iperf3 does not listen")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// busy is how long the machine's CPUs have worked, in seconds: whoever it was
// for, interrupts too, but not what the hypervisor took.
func busy() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, wait, irq, softirq float64
	if _, err := fmt.Sscanf(string(text), "cpu %g %g %g %g %g %g %g", &user, &nice, &system, &idle, &wait, &irq, &softirq); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return (user + nice + system + irq + softirq) / 100, nil
}
