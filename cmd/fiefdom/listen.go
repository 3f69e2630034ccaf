package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"fiefdom/internal/unixsock"
	"fiefdom/vassal"
)

// listen makes a listening socket and removes it at the end. A socket that a
// dead process left there is replaced; one that somebody serves is not.
func (r *runner) listen(network, address string, mode uint32) (*os.File, error) {
	if network == "unix" {
		if err := unixsock.RemoveStale(address); err != nil {
			return nil, fmt.Errorf("%s: %w", address, err)
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	filer, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%s %s cannot be handed to the router", network, address)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
		r.later(func() error { return os.Remove(address) })
		if err := os.Chmod(address, fs.FileMode(mode)); err != nil {
			return nil, err
		}
	}
	f, err := filer.File()
	if err != nil {
		return nil, err
	}
	r.later(f.Close)
	return f, nil
}

// listenTo listens at ADDRESS:PORT, or at an absolute path, which is root's alone
// if the rights do not say otherwise.
func (r *runner) listenTo(address string, rights vassal.SocketRights) (net.Listener, error) {
	if !filepath.IsAbs(address) {
		f, err := r.listen("tcp", address, 0)
		if err != nil {
			return nil, err
		}
		return net.FileListener(f)
	}
	f, err := r.listen("unix", address, 0o600) // until its owner is right
	if err != nil {
		return nil, err
	}
	const same = -1
	mode, uid, gid := uint32(0o600), same, same
	mode, uid, gid = *cmp.Or(rights.Mode, &mode), *cmp.Or(rights.UID, &uid), *cmp.Or(rights.GID, &gid)
	if err := errors.Join(os.Lchown(address, uid, gid), os.Chmod(address, fs.FileMode(mode))); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}
