package emperor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"fiefdom/internal/hostsfile"
)

// nameHosts gives the vassal an /etc/hosts of its own: itself, loopback, and what
// the host's says about others.
func (r *resolved) nameHosts(i *Instance, name string) {
	r.plan.Hosts = i.Path(hostsFolder, safeName(name))
	b := bytes.NewBufferString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	own := strings.ToLower(name)
	for _, l := range r.links {
		for _, a := range l.Addresses {
			if !strings.ContainsAny(own, " \t\n#") && own != "localhost" {
				fmt.Fprintf(b, "%s %s\n", a.Addr(), own)
			}
		}
	}
	r.hosts = b.Bytes()
}

// writeHosts writes the file. It is the same for a jail's whole life, so that who
// has it mounted never sees it change.
func (s *startJob) writeHosts() error {
	path := s.r.plan.Hosts
	if path == "" {
		return nil
	}
	text := append(s.r.hosts, otherMachines(hostsfile.Path)...)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, text) {
		return nil
	}
	if err := os.MkdirAll(s.e.Instance.Path(hostsFolder), 0o711); err != nil {
		return fmt.Errorf("/etc/hosts of the vassal: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("/etc/hosts of the vassal: %w", err)
	}
	// The vassal's uid reads it, whatever umask the emperor was started with.
	return os.Chmod(path, 0o644)
}

// removeHosts removes the file of a vassal that is gone.
func (e *Emperor) removeHosts(name string) {
	if err := os.Remove(e.Instance.Path(hostsFolder, safeName(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.Log.Warn("remove what was the vassal's /etc/hosts", "vassal", name, "err", err)
	}
}

// otherMachines are the lines of a hosts file about other machines. Those about this
// one mean something else in a jail, and vassals have names of their own.
func otherMachines(path string) (lines []byte) {
	text, err := hostsfile.Others(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if a, err := netip.ParseAddr(words[0]); err == nil && !a.IsLoopback() && !a.IsMulticast() && !a.IsUnspecified() {
			lines = append(lines, strings.TrimRight(line, "\n")+"\n"...)
		}
	}
	return lines
}

// apiHosts tells root the names as /etc/hosts would have them, and keeps them there,
// or takes them away.
func (e *Emperor) apiHosts(w http.ResponseWriter, r *http.Request) {
	if uid, ok := r.Context().Value(peerKey{}).(uint32); !ok || uid != 0 {
		http.Error(w, "only root sees the names of all vassals, and changes /etc/hosts", http.StatusForbidden)
		return
	}
	var keep *bool
	if r.Method == http.MethodPost {
		on := r.URL.Query().Get("keep") == "true"
		keep = &on
	}
	if e.Hosts == nil {
		http.Error(w, "the emperor is starting", http.StatusServiceUnavailable)
		return
	}
	told, err := e.Hosts(keep)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, told)
}

// Hosts asks for the block of /etc/hosts, and has it kept there or taken away.
func (c *Client) Hosts(ctx context.Context, keep *bool, into any) error {
	if keep == nil {
		return c.ask(ctx, http.MethodGet, "/hosts", into)
	}
	return c.ask(ctx, http.MethodPost, "/hosts?keep="+strconv.FormatBool(*keep), into)
}
