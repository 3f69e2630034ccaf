package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	nsh "github.com/vishvananda/netns"

	"fiefdom/emperor"
	"fiefdom/examples"
	"fiefdom/internal/netns"
)

// Where the demo's files are, in the world's own /run.
const (
	demoDir     = "/run/demo"
	demoVassals = demoDir + "/vassals"
	demoLog     = demoDir + "/emperor.log"
	demoRuntime = "/run/fiefdom/quickstart"
)

// demoPatience is for what should take milliseconds, on a busy machine.
const demoPatience = 10 * time.Second

// story is the demo while it is told.
type story struct {
	out     io.Writer
	files   fs.FS // the example's
	inet    *internet
	api     *emperor.Client
	emperor *exec.Cmd
	ended   chan struct{} // closed when the emperor has ended
	before  []string      // the host without an emperor
}

// step is a line of the story: what holds, and what shows that it does.
type step struct {
	says string
	show func(*story, context.Context) (evidence string, err error)
}

// tellDemo is the first process of the demo's world: it furnishes that, tells
// the story, and ends when its input does.
func tellDemo(out io.Writer) error {
	if os.Getpid() != 1 {
		return errors.New("this is a part of fiefdom demo, which starts it in namespaces of its own")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ns, err := furnishDemo()
	if err != nil {
		return err
	}
	inet, err := openInternet(ns)
	if err != nil {
		return err
	}
	defer inet.close()
	s := &story{out: out, inet: inet, api: emperor.NewClient(demoRuntime)}
	if s.files, err = fs.Sub(examples.Quickstart, "quickstart"); err != nil {
		return err
	}
	defer s.kill()
	return s.tell(ctx, demoSteps)
}

const demoTitle = `A host 198.51.100.1 and an internet 198.51.100.2, in namespaces of their own:
this machine's network, sysctls and iptables are not touched.

`

// tell goes through the steps and stops at the first that does not hold.
func (s *story) tell(ctx context.Context, steps []step) error {
	fmt.Fprint(s.out, demoTitle)
	began := time.Now()
	for _, st := range steps {
		start := time.Now()
		evidence, err := st.show(s, ctx)
		took := time.Since(start)
		if ctx.Err() != nil {
			return errSaid // by the process that was interrupted
		}
		if err != nil {
			evidence = err.Error()
		}
		printStep(s.out, st.says, evidence, took, err == nil)
		if err != nil {
			s.printLog()
			return errors.New("the demo stopped at what did not hold")
		}
	}
	_, err := fmt.Fprintf(s.out, "\nAll of it held, in %s.\n", took(time.Since(began)))
	return err
}

// printStep prints a line of at most 80 columns, and its evidence below.
func printStep(w io.Writer, says, evidence string, d time.Duration, holds bool) {
	mark := "✓"
	if !holds {
		mark = "✗"
	}
	fmt.Fprintf(w, "%s %-67s %9s\n", mark, says, took(d))
	for line := range strings.Lines(evidence) {
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(line, " \n"))
	}
}

func took(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
}

// printLog prints the end of the emperor's log, for whoever looks for a fault.
func (s *story) printLog() {
	text, err := os.ReadFile(demoLog)
	if err != nil {
		return // there was no emperor yet
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	fmt.Fprintf(s.out, "\nThe emperor's log:\n%s\n", strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// launch starts the emperor.
func (s *story) launch() error {
	log, err := os.Create(demoLog)
	if err != nil {
		return err
	}
	defer log.Close()
	s.emperor = exec.Command("/proc/self/exe", "run", filepath.Join(demoDir, "emperor.ini"))
	s.emperor.Args[0] = os.Args[0]
	s.emperor.Stdout, s.emperor.Stderr = log, log
	if err := s.emperor.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.emperor.Wait() // ProcessState has what is of interest
	}()
	return nil
}

// kill ends an emperor that the story did not end. What is left of it ends
// with our pid namespace.
func (s *story) kill() {
	if s.emperor == nil {
		return
	}
	_ = s.emperor.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(demoPatience):
	}
}

// drop drops a vassal's ini into the emperor's folder: renamed in one step, so
// that it is never seen half.
func (s *story) drop(name, text string) error {
	tmp := filepath.Join(demoDir, name+".new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(demoVassals, name+".ini"))
}

// await waits until a vassal's status is as wanted, and returns it.
func (s *story) await(ctx context.Context, name string, want func(emperor.Status) error) (emperor.Status, error) {
	var got emperor.Status
	err := until(ctx, demoPatience, func() (err error) {
		select {
		case <-s.ended:
			return errors.New("the emperor ended")
		default:
		}
		if got, err = s.api.Get(ctx, name); err != nil {
			return err
		}
		if err := want(got); err != nil {
			return fmt.Errorf("%s is %s %s: %w", name, got.State, got.Error, err)
		}
		return nil
	})
	return got, err
}

// up wants a vassal that runs, in a process other than the given one, and
// serves the host on port 8000.
func (s *story) up(ctx context.Context, name string, not int) (emperor.Status, error) {
	return s.await(ctx, name, func(v emperor.Status) error {
		if v.State != emperor.Running || v.PID == not || len(v.Addresses) == 0 {
			return errors.New("it does not run yet")
		}
		_, err := get(ctx, nsh.None(), v.Addresses[0], "8000", "/")
		return err
	})
}

// get asks a web server from a namespace, or from the host when that is none.
func get(ctx context.Context, ns nsh.NsHandle, addr netip.Addr, port, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := open(ctx, ns, addr, port, path)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return string(text), err
}

// open is get for an answer that takes long.
func open(ctx context.Context, ns nsh.NsHandle, addr netip.Addr, port, path string) (io.ReadCloser, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialFrom(ctx, ns, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(addr.String(), port)+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// dialFrom connects from a namespace: the socket is made, and stays, in it.
func dialFrom(ctx context.Context, ns nsh.NsHandle, network, address string) (c net.Conn, err error) {
	var d net.Dialer
	if !ns.IsOpen() {
		return d.DialContext(ctx, network, address)
	}
	err = netns.Do(ns, func() error {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
