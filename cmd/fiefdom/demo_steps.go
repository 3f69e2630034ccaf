package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	nsh "github.com/vishvananda/netns"

	"fiefdom/emperor"
)

// demoSteps are the story. Each stands on those before it.
var demoSteps = []step{
	{"an emperor runs, with one network", (*story).begin},
	{"two inis dropped into its folder: both apps answer", (*story).dropApps},
	{"blog reaches the internet through NAT", (*story).reachInternet},
	{"blog and shop cannot reach each other", (*story).isolated},
	{"blog's port 8000 is published at the host's port 80, live", (*story).publish},
	{"a thief that declares shop's address does not start", (*story).refuseClaim},
	{"a thief that sends from shop's address is not heard", (*story).refuseSpoofing},
	{"blog is killed, and back", (*story).killApp},
	{"the router is killed under a download of 96 MB, which is right", (*story).killRouter},
	{"fiefdom ps", (*story).list},
	{"the emperor stops, and nothing is left of it", (*story).end},
}

func (s *story) begin(ctx context.Context) (string, error) {
	// The apps come later, one by one, as on a machine in use.
	if err := copyFiles(s.files, demoDir); err != nil {
		return "", err
	}
	for _, name := range []string{"blog", "shop"} {
		if err := os.Remove(filepath.Join(demoVassals, name+".ini")); err != nil {
			return "", err
		}
	}
	var err error
	if s.before, err = hostState(); err != nil {
		return "", err
	}
	if err := s.launch(); err != nil {
		return "", err
	}
	err = until(ctx, demoPatience, func() error {
		_, err := s.api.List(ctx)
		return err
	})
	return "fief0 has 10.9.0.1; the pool 10.9.0.0/16 leaves as " + demoHost.Addr().String(), err
}

func (s *story) dropApps(ctx context.Context) (string, error) {
	var lines []string
	for _, name := range []string{"blog", "shop"} {
		text, err := fs.ReadFile(s.files, "vassals/"+name+".ini")
		if err != nil {
			return "", err
		}
		if err := s.drop(name, string(text)); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"blog", "shop"} {
		v, err := s.up(ctx, name, 0)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%s has %s and runs under uid %d", name, v.Addresses[0], v.UID))
	}
	return strings.Join(lines, "\n"), nil
}

// jailOf opens the network namespace of a vassal that runs.
func (s *story) jailOf(ctx context.Context, name string) (nsh.NsHandle, emperor.Status, error) {
	v, err := s.await(ctx, name, func(v emperor.Status) error {
		if v.State != emperor.Running {
			return errors.New("it does not run")
		}
		return nil
	})
	if err != nil {
		return nsh.None(), v, err
	}
	ns, err := nsh.GetFromPid(v.PID)
	return ns, v, err
}

func (s *story) reachInternet(ctx context.Context) (string, error) {
	jail, blog, err := s.jailOf(ctx, "blog")
	if err != nil {
		return "", err
	}
	defer jail.Close()
	seen, err := get(ctx, jail, demoInet.Addr(), "80", "/whoami")
	if err != nil {
		return "", err
	}
	if seen != demoHost.Addr().String() {
		return "", fmt.Errorf("a server there saw %s, not the host's address", seen)
	}
	return fmt.Sprintf("%s asked %s, which saw %s: the host", blog.Addresses[0], demoInet.Addr(), seen), nil
}

// isolated lets each app try to connect to the other, which the host can do.
func (s *story) isolated(ctx context.Context) (string, error) {
	var lines []string
	for _, pair := range [][2]string{{"blog", "shop"}, {"shop", "blog"}} {
		jail, from, err := s.jailOf(ctx, pair[0])
		if err != nil {
			return "", err
		}
		defer jail.Close()
		to, err := s.up(ctx, pair[1], 0)
		if err != nil {
			return "", err
		}
		trying, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
		defer cancel()
		c, err := dialFrom(trying, jail, "tcp", net.JoinHostPort(to.Addresses[0].String(), "8000"))
		if err == nil {
			return "", errors.Join(fmt.Errorf("%s reached %s", pair[0], pair[1]), c.Close())
		}
		n, err := s.dropped(ctx, from, "isolate", 1)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%s to %s: %s dropped, reason isolate", pair[0], pair[1], packets(n)))
	}
	lines = append(lines, "decided by tuntap-router-isolate, on unless the ini says off")
	return strings.Join(lines, "\n"), nil
}

func packets(n uint64) string {
	if n == 1 {
		return "1 packet"
	}
	return strconv.FormatUint(n, 10) + " packets"
}

// dropped waits until the router has dropped as many more of a vassal's packets
// for a reason.
func (s *story) dropped(ctx context.Context, before emperor.Status, reason string, more uint64) (n uint64, err error) {
	_, err = s.await(ctx, before.Name, func(now emperor.Status) error {
		if n = now.Drops[reason] - before.Drops[reason]; n < more {
			return fmt.Errorf("%s dropped for %s, not %d", packets(n), reason, more)
		}
		return nil
	})
	return n, err
}

// publish has blog's ini say one line more, and a stranger come.
func (s *story) publish(ctx context.Context) (string, error) {
	before, err := s.up(ctx, "blog", 0)
	if err != nil {
		return "", err
	}
	text, err := fs.ReadFile(s.files, "vassals/blog.ini")
	if err != nil {
		return "", err
	}
	if err := s.drop("blog", string(text)+"publish = 80:8000\n"); err != nil {
		return "", err
	}
	after, err := s.await(ctx, "blog", func(v emperor.Status) error {
		if len(v.Published) == 0 {
			return errors.New("nothing is published")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if after.PID != before.PID {
		return "", fmt.Errorf("it was restarted: pid %d, then pid %d", before.PID, after.PID)
	}
	if _, err := get(ctx, s.inet.ns, demoHost.Addr(), "80", "/"); err != nil {
		return "", fmt.Errorf("from the internet: %w", err)
	}
	stranger := demoInet.Addr().String()
	err = until(ctx, demoPatience, func() error {
		log, err := os.ReadFile(demoLog)
		if err == nil && !strings.Contains(string(log), stranger+" - - [") {
			err = errors.New("its log does not tell of a visitor")
		}
		return err
	})
	return fmt.Sprintf("%s asked %s: blog answered, and logged that visitor", stranger, demoHost.Addr()), err
}

func (s *story) killApp(ctx context.Context) (string, error) {
	old, err := s.up(ctx, "blog", 0)
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill blog: %w", err)
	}
	now, err := s.up(ctx, "blog", old.PID)
	if err != nil {
		return "", err
	}
	if now.Addresses[0] != old.Addresses[0] {
		return "", fmt.Errorf("it had %s and has %s now", old.Addresses[0], now.Addresses[0])
	}
	return fmt.Sprintf("pid %d, then pid %d, which has %s again and answers", old.PID, now.PID, now.Addresses[0]), nil
}

func (s *story) killRouter(ctx context.Context) (string, error) {
	want, err := fileHash()
	if err != nil {
		return "", err
	}
	jail, _, err := s.jailOf(ctx, "blog")
	if err != nil {
		return "", err
	}
	defer jail.Close()
	body, err := open(ctx, jail, demoInet.Addr(), "80", "/file")
	if err != nil {
		return "", err
	}
	defer body.Close()
	old, err := routerPID()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.CopyN(h, body, downloadSize/4); err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill the router: %w", err)
	}
	still, err := copyWatched(h, body)
	if err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return "", fmt.Errorf("sha256 is %s; want %s", got, want)
	}
	now, err := routerPID()
	if err != nil || now == old {
		return "", errors.Join(fmt.Errorf("the router's pid is still %d", now), err)
	}
	return fmt.Sprintf("router pid %d, then pid %d; the download stood still for %s\nsha256 %s…, as it should be",
		old, now, took(still), want[:32]), nil
}

// copyWatched copies all of r and returns the longest time that it waited.
func copyWatched(w io.Writer, r io.Reader) (still time.Duration, err error) {
	buf := make([]byte, 64<<10)
	for last := time.Now(); ; last = time.Now() {
		n, err := r.Read(buf)
		still = max(still, time.Since(last))
		if _, werr := w.Write(buf[:n]); werr != nil {
			return still, werr
		}
		if errors.Is(err, io.EOF) {
			return still, nil
		}
		if err != nil {
			return still, err
		}
	}
}

// routerPID is the router's, as the emperor has it on record.
func routerPID() (int, error) {
	text, err := os.ReadFile(filepath.Join(demoRuntime, "router"))
	if err != nil {
		return 0, err
	}
	pid, _, _ := strings.Cut(string(text), " ")
	return strconv.Atoi(pid)
}

func (s *story) list(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "ps")
	cmd.Args[0] = os.Args[0]
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	for _, name := range []string{"blog", "shop"} {
		if !strings.Contains(string(out), "\n"+name) {
			return "", fmt.Errorf("%s is missing in:\n%s", name, out)
		}
	}
	return string(out), nil
}

func (s *story) end(ctx context.Context) (string, error) {
	if err := s.emperor.Process.Signal(syscall.SIGTERM); err != nil {
		return "", err
	}
	select {
	case <-s.ended:
	case <-time.After(demoPatience):
		return "", fmt.Errorf("the emperor did not stop within %v", demoPatience)
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if code := s.emperor.ProcessState.ExitCode(); code != exitOK {
		return "", fmt.Errorf("the emperor's exit code is %d", code)
	}
	err := until(ctx, 5*time.Second, func() error {
		now, err := hostState()
		if err != nil {
			return err
		}
		if d := differences(s.before, now); len(d) > 0 {
			return errors.New(strings.Join(d, "\n"))
		}
		return nil
	})
	return "processes, devices, iptables rules, cgroups, mounts, files: as before", err
}
