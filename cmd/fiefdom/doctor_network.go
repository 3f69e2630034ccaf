package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/internal/responder"
	"fiefdom/tuntap"
)

// checkIPTables runs the tool in a network of its own: what it loads or makes
// when it is first called it does not make in the host's.
func checkIPTables(tool, missing string) finding {
	const install = "apt install iptables, or set tuntap-router-nat = off"
	path, err := exec.LookPath(tool)
	if err != nil {
		return finding{Level: missing, Detail: tool + " is not installed", Fix: install}
	}
	if _, err := exec.LookPath(tool + "-restore"); err != nil {
		return finding{Level: missing, Detail: tool + "-restore is not installed", Fix: install}
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return finding{Level: missing, Detail: fmt.Sprintf("%s --version: %v", tool, err), Fix: "apt install --reinstall iptables"}
	}
	var out []byte
	err = inFreshNetwork(func() (err error) {
		out, err = exec.Command(path, "-t", "nat", "-S").CombinedOutput()
		return err
	})
	if err != nil {
		fix := "load its modules on the host (modprobe nf_tables nft_compat; for the legacy backend: modprobe iptable_nat)"
		if os.Geteuid() != 0 {
			fix = "run it as root"
		}
		return finding{Level: missing, Detail: strings.TrimRight(fmt.Sprintf("%s -t nat -S: %v: %s", tool, err, strings.TrimSpace(string(out))), ": "), Fix: fix}
	}
	return fine("%s, runs", strings.TrimSpace(string(version)))
}

// stateRoot is where instances have their state directories.
const stateRoot = "/var/lib/fiefdom"

// checkForwarding tells what instances have switched on. That is left on when
// they stop, since others may rely on it by then.
func checkForwarding() finding {
	left, used, err := forwardingOf(stateRoot)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return warn("run it as root", "%v", err)
	case err != nil:
		return warn("", "%v", err)
	case len(left) > 0:
		return warn(strings.Join(left, "\n"), "left on by an emperor that does not run now; others may rely on it")
	case len(used) > 0:
		return fine("on for running emperors: %s", strings.Join(used, ", "))
	}
	return fine("nothing is on because of an emperor")
}

// forwardingOf lists the sysctls that instances have switched on: those of
// stopped ones as commands that switch them off, those of running ones as they
// are.
func forwardingOf(root string) (left, used []string, err error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "forwarding.json"))
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.ReadDir(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		host, err := nat.New(filepath.Base(dir), dir, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		on, err := host.Forwarding()
		if err != nil {
			return nil, nil, err
		}
		if answers(filepath.Join(runtimeRoot, filepath.Base(dir))) {
			used = append(used, on...)
			continue
		}
		for _, line := range on {
			left = append(left, switchOff(line))
		}
	}
	return left, used, nil
}

// switchOff is the command that takes a line of nat.Host.Forwarding back.
func switchOff(line string) string {
	name, _, _ := strings.Cut(line, " = ")
	before := "0"
	if strings.HasSuffix(name, ".accept_ra") {
		before = "1" // only a device that followed advertisements is kept at it
	}
	return "sysctl -w " + name + "=" + before
}

func checkResolvers() finding {
	found := responder.HostConf().Resolvers
	if len(found) == 0 {
		return warn("add a line \"nameserver ADDRESS\" to "+responder.ResolvConf,
			"none in %s: vassals find each other by name, and nobody else", responder.ResolvConf)
	}
	words := make([]string, len(found))
	for i, a := range found {
		words[i] = a.Addr().String()
	}
	return fine("%s, for what is no vassal's name", strings.Join(words, ", "))
}

// checkNames says which emperor does not answer for names, and who has their port at
// all of the host's addresses.
func checkNames() finding {
	for _, name := range instances() {
		if why := nameless(name); why != "" {
			return warn("look at what it says: fiefdom events --instance "+name, "the responder of %s does not stay up, so vassals' questions are not answered: %s", name, why)
		}
	}
	who := emperor.PortHolder(netip.IPv4Unspecified(), responder.Port, true)
	switch _, err := exec.LookPath("iptables"); {
	case who == "":
		return fine("nobody has port 53 of all addresses")
	case err != nil:
		return warn("install iptables, or let that program listen at single addresses", "%s has port 53 of all addresses, and without iptables vassals' questions cannot be led past it", who)
	}
	return fine("%s has port 53 of all addresses: vassals' questions are led past it by a rule", who)
}

// nameless asks an emperor why he does not answer for names.
func nameless(instance string) string {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	self, err := emperor.NewClient(filepath.Join(runtimeRoot, instance)).Self(ctx)
	if err != nil {
		return "" // he does not tell us
	}
	return self.Nameless
}

// answerTime is how long an emperor may take to answer the doctor.
const answerTime = 2 * time.Second

func checkUwsgi() finding {
	path, err := exec.LookPath("uwsgi")
	if err != nil {
		return fine("not installed; only app-server options (psgi, wsgi-file, …) need it:\napt install uwsgi-core")
	}
	return fine("%s, for vassals with app-server options", path)
}

// clashChecks compare the pools of an emperor's networks with the host's.
func clashChecks(networks []tuntap.NetworkOptions) []check {
	var checks []check
	for _, n := range networks {
		if n.Native() {
			checks = append(checks, check{"pool", func() finding { return checkClash(&n) }})
		}
	}
	return checks
}

func checkClash(n *tuntap.NetworkOptions) finding {
	err := nat.Clash(n.Pool(), n.Device)
	if clash, ok := errors.AsType[*nat.ClashError](err); ok {
		fix := "change tuntap-router-address to a prefix that is free"
		if clash.Free.IsValid() {
			fix = fmt.Sprintf("tuntap-router-address = %s/%d", clash.Free.Addr().Next(), clash.Free.Bits())
		}
		where := ""
		if clash.Device != "" {
			where = " on " + clash.Device
		}
		return fail(fix, "%s: %s of %s overlaps the host's network %s%s", n.Pos, clash.Pool, n.Device, clash.Taken, where)
	}
	if err != nil {
		return fail("", "%s: %v", n.Pos, err)
	}
	return fine("%s: %s overlaps no network of the host", n.Device, strings.Trim(fmt.Sprint(n.Pool()), "[]"))
}
