package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/hostsfile"
	"fiefdom/internal/responder"
)

// looksAfter is how often the vassals' own files are looked at after a change of the
// host's: one that was starting then may not have been seen.
const looksAfter = 3

// hostFilesTime is how soon a change of the host's resolv.conf or hosts file is seen.
const hostFilesTime = 2 * time.Second

// followHost looks at the host's resolv.conf and hosts file, which DHCP clients, VPNs
// and people change, each in his own way: the responder asks other resolvers then,
// and vassals' own files, which are mounted there, go where one is replaced.
func (r *runner) followHost(ctx context.Context) {
	tick := time.NewTicker(hostFilesTime)
	defer tick.Stop()
	seen, looks := hostFiles(), looksAfter // it may have been before we began
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !r.hasOwnFiles() {
			continue
		}
		r.useResolvers(responder.HostConf())
		if now := hostFiles(); now != seen {
			seen, looks = now, looksAfter
		}
		if looks > 0 {
			looks--
			r.emperor.KeepFiles(ctx)
		}
	}
}

// hasOwnFiles says whether some vassals may have files of their own in place of the
// host's: where their network gives them resolvers.
func (r *runner) hasOwnFiles() bool {
	for i := range r.emperor.Networks { // whose rules may be read again just now
		if r.emperor.Networks[i].Resolv != "" {
			return true
		}
	}
	r.bridges.mu.Lock()
	defer r.bridges.mu.Unlock()
	return len(r.bridges.known) > 0
}

// fileMark tells a file from one that takes its place.
type fileMark struct {
	dev, inode uint64
	changed    unix.Timespec
}

func hostFiles() (marks [2]fileMark) {
	for i, path := range []string{responder.ResolvConf, hostsfile.Path} {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			marks[i] = fileMark{uint64(st.Dev), st.Ino, st.Ctim}
		}
	}
	return marks
}
