package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

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

// listenFor listens where an option of the emperor's says; nil if it does not. A
// path is root's alone.
func (r *runner) listenFor(option, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	f, err := r.listen(statsNetwork(address), address, statsMode)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", option, address, err)
	}
	return l, nil
}

// giveSocket gives a socket the owner and the mode that the rights name.
func giveSocket(path string, rights vassal.SocketRights) error {
	same := -1
	err := os.Lchown(path, *cmp.Or(rights.UID, &same), *cmp.Or(rights.GID, &same))
	if rights.Mode != nil {
		err = errors.Join(err, os.Chmod(path, fs.FileMode(*rights.Mode)))
	}
	return err
}
