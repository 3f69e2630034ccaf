package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"fiefdom/cmd/fiefdom/internal/web"
)

// webKey is the file of the state directory that has the page's key.
const webKey = "web.key"

// startWeb serves the page where emperor-web says, until ctx is done.
func (r *runner) startWeb(ctx context.Context, wg *sync.WaitGroup) error {
	address := r.config.Web.Address
	if address == "" {
		return nil
	}
	o, err := r.webOptions()
	if err != nil {
		return err
	}
	l, err := r.listenFor("emperor-web", address, r.config.Web.Rights)
	if err != nil {
		return err
	}
	r.log.Info("web page served", "addr", address, "key", cmp.Or(o.KeyFile, "none"))
	wg.Go(func() { r.complain("web page", web.Serve(ctx, l, o)) })
	return nil
}

// webOptions joins the page with what it shows. Everybody on the machine can
// connect to an address, so there a key is wanted.
func (r *runner) webOptions() (web.Options, error) {
	o := web.Options{
		Source: web.Source{Self: r.emperor.Self, Vassals: r.emperor.Vassals, Logs: r.emperor.LastLines, Events: r.journal.Latest},
		Log:    r.log,
	}
	if len(r.networks) > 0 {
		o.Drops, o.Networks = r.keeper.LastDrops, r.keeper.Snapshot
	}
	if filepath.IsAbs(r.config.Web.Address) {
		return o, nil
	}
	o.KeyFile = filepath.Join(r.config.State, webKey)
	var err error
	if o.Key, err = readKey(o.KeyFile); err != nil {
		return o, fmt.Errorf("emperor-web: the page's key: %w", err)
	}
	return o, nil
}

// keyLength is the least that a key has of bytes: one that can be guessed is none.
const keyLength = 16

// readKey reads a key, or makes one that nobody knows. One that others could have
// read or written is none.
func readKey(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		key := rand.Text()
		return key, renameio.WriteFile(path, []byte(key+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a file of mode 600 that belongs to the emperor's user, so others may know it: remove it, and the next start makes another", path)
	}
	b := make([]byte, 1024)
	n, err := f.Read(b)
	key := strings.TrimSpace(string(b[:n]))
	if err != nil || len(key) < keyLength {
		return "", errors.Join(fmt.Errorf("%s has less than %d characters: remove it, and the next start makes another", path, keyLength), err)
	}
	return key, nil
}
