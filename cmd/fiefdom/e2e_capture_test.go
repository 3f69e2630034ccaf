package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// capture starts a capture to a file of the world, and waits until it runs.
func (r *realm) capture(path string, args ...string) (*exec.Cmd, *strings.Builder) {
	r.t.Helper()
	cmd := fiefdom(append([]string{"capture", "-w", path}, args...)...)
	said := new(strings.Builder)
	cmd.Stderr = said
	r.Start(r.t, cmd)
	nettest.Eventually(r.t, patience, "the capture has begun", func() bool { return r.read(path) != "" })
	return cmd, said
}

// packets are a capture's: "in|out: verdict".
func (r *realm) packets(path string) (list []string) {
	r.t.Helper()
	f, err := os.Open(r.Path(path))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	in, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		r.t.Fatal(err)
	}
	if in.LinkType() != layers.LinkTypeRaw {
		r.t.Errorf("link type %v", in.LinkType())
	}
	for {
		data, ci, opts, err := in.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			r.t.Fatal(err)
		}
		dir := "in"
		if opts.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound {
			dir = "out"
		}
		if len(data) == 0 || data[0]>>4 != 4 || ci.CaptureLength != len(data) {
			r.t.Errorf("a packet of %d bytes: % x", ci.CaptureLength, data)
		}
		list = append(list, fmt.Sprintf("%s: %s", dir, strings.Join(opts.Comments, " ")))
	}
}

func TestCaptureToAFile(t *testing.T) {
	t.Parallel()
	r := newRealm(t, walledNetwork, map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	enough, said := r.capture("/run/t/two.pcapng", "blog", "-c", "2", "udp", "port", "53")
	rest, more := r.capture("/run/t/rest.pcapng", "blog", "host", "203.0.113.9")
	for _, to := range []string{"203.0.113.9/53", "192.168.7.7/53", "203.0.113.9/54", "198.51.100.2/53"} {
		r.mustSh(blog, "echo x > /dev/udp/"+to+" || bash -c 'echo x > /dev/udp/"+to+"'")
	}
	if err := enough.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if got, want := strings.Join(r.packets("/run/t/two.pcapng"), ", "), "out: deny /run/t/emperor.ini:9, out: isolate"; got != want {
		t.Errorf("captured %s; want %s", got, want)
	}
	if !strings.Contains(said.String(), "2 packets captured, 0 lost") {
		t.Errorf("it says %q", said)
	}
	nettest.Eventually(t, patience, "what came is in the file", func() bool { return strings.Count(r.read("/run/t/rest.pcapng"), "emperor.ini:9") == 2 })
	if err := rest.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := rest.Wait(); err != nil || !strings.Contains(more.String(), "2 packets captured, 0 lost") {
		t.Errorf("after ^C: %v, %s", err, more)
	}
	if st, err := os.Stat(r.Path("/run/t/rest.pcapng")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	answers, _ := r.capture("/run/t/pings.pcapng", "blog", "-c", "2", "icmp", "host", blog.Addresses[0].String())
	r.Host.Run(t, "ping", "-c", "1", "-W", "5", blog.Addresses[0].String())
	if err := answers.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.packets("/run/t/pings.pcapng"), ", "); got != "in: allow, out: allow" {
		t.Errorf("captured %s", got)
	}
	last, _ := r.capture("/run/t/last.pcapng", "blog")
	r.mustRun("stop", "blog")
	r.remove("blog")
	if err := last.Wait(); err != nil {
		t.Errorf("after the device: %v", err)
	}
	r.stop(syscall.SIGTERM)
}

func TestCaptureIsItsOwners(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.writeAs(iniPath("blog"), agentIni, 2001, 2002)
	r.writeAs(iniPath("shop"), agentIni, 2003, 2002)
	r.start()
	r.reach("blog")
	r.awaitState("shop", emperor.Running)
	out, err := r.Try(t, "setpriv", "--reuid", "2001", "--regid", "2002", "--clear-groups", "sh", "-c", "fiefdom capture shop | cat")
	if err != nil || !strings.Contains(out, `no vassal "shop"`) {
		t.Errorf("%v: %s", err, out)
	}
	for args, want := range map[string]int{
		"blog sideways": exitUsage, "blog tcp udp": exitUsage, "blog port": exitUsage, "blog port x": exitUsage, "blog host 1.2": exitUsage,
		"blog -c -1": exitUsage, "nobody": exitNotFound, "blog --network fief9": exitFailed,
	} {
		if out, code := r.run(append([]string{"capture", "-w", "/run/t/x"}, strings.Fields(args)...)...); code != want {
			t.Errorf("capture %s: exit code %d, want %d:\n%s", args, code, want, out)
		}
	}
	if r.exists("/run/t/x") {
		t.Error("a capture that never was has made a file")
	}
}
