package packaging

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A machine has no systemd that runs. This stands in for it: units are enabled by
// the real systemctl, which needs nobody for that, and services are started from
// the real unit's lines and waited for by the real protocol.

const (
	managed       = "/run/manager" // UNIT: the pid of its main process; UNIT.told: what it said
	managerTime   = 30 * time.Second
	realSystemctl = "/usr/bin/systemctl.real"
)

// systemctl is what the machine's commands and maintainer scripts call.
func systemctl(args []string) int {
	if err := manage(args); err != nil {
		fmt.Fprintln(os.Stderr, "systemctl:", err)
		return 1
	}
	return 0
}

func manage(args []string) error {
	var words []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			words = append(words, strings.TrimSuffix(a, ".service"))
		}
	}
	if len(words) == 0 {
		return fmt.Errorf("what is %q", args)
	}
	switch word := words[0]; word {
	case "daemon-reload":
		return nil
	case "enable", "disable", "is-enabled":
		// Nobody whom it could tell to start something runs.
		now := func(a string) bool { return a == "--now" }
		c := exec.Command(realSystemctl, slices.DeleteFunc(slices.Clone(args), now)...)
		c.Env = append(os.Environ(), "SYSTEMD_OFFLINE=1")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil || !slices.ContainsFunc(args, now) {
			return err
		}
		return each(words[1:], startUnit)
	case "start":
		return each(words[1:], startUnit)
	case "stop":
		return each(words[1:], stopUnit)
	case "restart":
		return errors.Join(each(words[1:], stopUnit), each(words[1:], startUnit))
	case "reload":
		return each(words[1:], reloadUnit)
	case "is-active":
		state := "active"
		if mainPID(words[1]) == 0 {
			state = "inactive"
		}
		if !slices.Contains(args, "--quiet") {
			fmt.Println(state)
		}
		if state != "active" {
			os.Exit(3)
		}
		return nil
	case "list-units":
		return each(words[1:], func(unit string) error {
			_, err := fmt.Printf("%s.service loaded active running an emperor\n", unit)
			return err
		})
	case "supervise":
		return superviseUnit(words[1])
	case "show", "kill": // deb-systemd-invoke asks for LoadState, UnitFileState
		fmt.Println("LoadState=loaded")
		return nil
	}
	return fmt.Errorf("what is %q", args)
}

// each does something with units; a pattern means those that run.
func each(units []string, do func(string) error) error {
	for _, u := range units {
		names := []string{u}
		if strings.ContainsAny(u, "*") {
			found, err := filepath.Glob(filepath.Join(managed, u))
			if err != nil {
				return err
			}
			names = nil
			for _, f := range found {
				if filepath.Ext(f) == "" {
					names = append(names, filepath.Base(f))
				}
			}
		}
		for _, name := range names {
			if err := do(name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func mainPID(unit string) int {
	text, err := os.ReadFile(filepath.Join(managed, unit))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(text))
	return pid
}

// told says how often a unit's service has said something.
func told(unit, line string) int {
	text, _ := os.ReadFile(filepath.Join(managed, unit+".told"))
	return strings.Count("\n"+string(text), "\n"+line+"\n")
}

func awaitUnit(what string, holds func() bool) error {
	for end := time.Now().Add(managerTime); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("still not %s", what)
		}
	}
	return nil
}

func startUnit(unit string) error {
	if mainPID(unit) != 0 {
		return nil
	}
	c := exec.Command("/proc/self/exe", "supervise", unit)
	c.Args[0] = "systemctl"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := os.OpenFile("/var/log/"+unit, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	failed := false
	err = awaitUnit("ready", func() bool {
		select {
		case <-ended:
			failed = true
		default:
		}
		return failed || told(unit, "READY=1") > 0
	})
	if failed {
		text, _ := os.ReadFile("/var/log/" + unit)
		return fmt.Errorf("it failed:\n%s", text)
	}
	return err
}

func stopUnit(unit string) error {
	pid := mainPID(unit)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	return awaitUnit("stopped", func() bool { return mainPID(unit) == 0 })
}

func reloadUnit(unit string) error {
	before := told(unit, "READY=1")
	if err := syscall.Kill(mainPID(unit), syscall.SIGHUP); err != nil {
		return err
	}
	return awaitUnit("reloaded", func() bool { return told(unit, "READY=1") > before })
}

// superviseUnit runs a unit's command to its end and listens to it.
func superviseUnit(unit string) error {
	line, err := execStart(unit)
	if err != nil {
		return err
	}
	pidFile, toldFile, socket := filepath.Join(managed, unit), filepath.Join(managed, unit+".told"), filepath.Join(managed, unit+".notify")
	if err := errors.Join(os.MkdirAll(managed, 0o700), os.WriteFile(toldFile, nil, 0o600)); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	go func() {
		f, err := os.OpenFile(toldFile, os.O_APPEND|os.O_WRONLY, 0o600)
		b := make([]byte, 4096)
		for n := 0; err == nil; {
			if n, err = l.Read(b); err == nil {
				_, err = f.WriteString(string(b[:n]) + "\n")
			}
		}
	}()
	c := exec.Command(line[0], line[1:]...)
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=30000000")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(c.Process.Pid)), 0o600); err != nil {
		return err
	}
	// The pid is the last to go: who waits for it may start the unit again at once,
	// and what this one said would be taken for the next one's word.
	return errors.Join(c.Wait(), os.Remove(socket), os.Remove(toldFile), os.Remove(pidFile))
}

// execStart is the command of a unit that is an instance of a template.
func execStart(unit string) ([]string, error) {
	template, instance, ok := strings.Cut(unit, "@")
	if !ok {
		return nil, errors.New("only instances of templates are known here")
	}
	text, err := os.ReadFile("/usr/lib/systemd/system/" + template + "@.service")
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
			return strings.Fields(strings.ReplaceAll(command, "%i", instance)), nil
		}
	}
	return nil, errors.New("it has no ExecStart")
}
