package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"fiefdom/internal/unixsock"
	"fiefdom/vassal"
)

// listen makes a listening socket and removes it at the end. A socket that a
// dead process left there is replaced; one that somebody serves is not.
func (r *runner) listen(network, address string, rights vassal.SocketRights) (*os.File, error) {
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
		r.later(func() error { return remove(address) })
	}
	f, err := filer.File()
	if err != nil {
		return nil, err
	}
	r.later(f.Close)
	if network == "unix" {
		return f, giveSocket(f, rights)
	}
	return f, nil
}

// rootOnly are the rights of a socket whose mode is not said.
func rootOnly(rights vassal.SocketRights) vassal.SocketRights {
	mode := uint32(statsMode)
	rights.Mode = cmp.Or(rights.Mode, &mode)
	return rights
}

// listenFor listens where an option of the emperor's says; nil if it does not. A
// path is root's alone if the rights do not say otherwise.
func (r *runner) listenFor(option, address string, rights vassal.SocketRights) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	f, err := r.listen(statsNetwork(address), address, rootOnly(rights))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	if statsNetwork(address) == "unix" {
		r.sockets = append(r.sockets, address)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", option, address, err)
	}
	return l, nil
}

// giveSocket gives a socket's file the owner and the mode that the rights name,
// whatever somebody has put at its path meanwhile.
func giveSocket(socket *os.File, rights vassal.SocketRights) error {
	path, err := unixsock.File(int(socket.Fd()))
	if err != nil {
		return err
	}
	defer unix.Close(path)
	same := -1
	err = unix.Fchownat(path, "", *cmp.Or(rights.UID, &same), *cmp.Or(rights.GID, &same), unix.AT_EMPTY_PATH)
	if rights.Mode != nil {
		err = errors.Join(err, os.Chmod(fmt.Sprintf("/proc/self/fd/%d", path), fs.FileMode(*rights.Mode)))
	}
	return err
}
