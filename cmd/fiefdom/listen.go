package main

import (
	"cmp"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"fiefdom/vassal"
)

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
