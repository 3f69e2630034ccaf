package vassal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/vault"
	"fiefdom/tuntap"
)

// JailRecord is what the next emperor has to know of a jail beside its
// descriptors.
type JailRecord struct {
	Name       string                  `json:"name"`
	Inode      uint64                  `json:"inode"`
	Lone       bool                    `json:"lone,omitempty"`
	Links      []Link                  `json:"links"`
	Registered [][]netip.Addr          `json:"registered"` // of each link
	Announced  [][]tuntap.Announcement `json:"announced"`  // of each link
}

// Keep adds the jail's descriptors to files.
func (j *Jail) Keep(files *vault.Files) (JailRecord, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := JailRecord{Name: j.Name, Inode: j.Inode, Lone: j.Lone}
	if !j.ns.IsOpen() {
		return r, errors.New("the jail is closed")
	}
	err := files.AddFD("net", int(j.ns))
	for i, l := range j.links {
		r.Links, r.Registered = append(r.Links, l.Link), append(r.Registered, l.registered)
		r.Announced = append(r.Announced, l.announced)
		if l.dev != nil {
			err = errors.Join(err, files.AddFD(fmt.Sprint("device", i), l.dev.FD()))
		}
	}
	return r, err
}

// RestoreJail makes a jail of what Keep has told. Its devices have no router
// until HandOver and Bridge.
func RestoreJail(r JailRecord, files *vault.Files) (_ *Jail, err error) {
	ns := files.Take("net")
	if ns == nil {
		return nil, errors.New("jail: no namespace")
	}
	defer ns.Close()
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("jail: %w", err)
	}
	j := &Jail{Name: r.Name, Inode: r.Inode, Lone: r.Lone, ns: nsh.NsHandle(fd)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("jail: %w", err), j.Close())
		}
	}()
	if inode, err := netns.Inode(j.ns); err != nil || inode != r.Inode || len(r.Registered) != len(r.Links) || len(r.Announced) != len(r.Links) {
		return nil, errors.Join(err, fmt.Errorf("namespace %d and %d links do not fit the record's", inode, len(r.Links)))
	}
	for i, spec := range r.Links {
		l := &link{Link: spec, registered: r.Registered[i], announced: r.Announced[i], restored: true}
		if err := l.restoreDevice(files.Take(fmt.Sprint("device", i))); err != nil {
			return nil, err
		}
		j.links = append(j.links, l)
	}
	return j, nil
}

// restoreDevice takes the device's descriptor, which one in a bridge has not.
func (l *link) restoreDevice(f *os.File) (err error) {
	if l.Bridge != "" {
		return nil
	}
	if f == nil {
		return fmt.Errorf("no device %s", l.Device)
	}
	l.dev, err = tuntap.NewDevice(l.Device, f)
	return err
}

// Links are the jail's devices as they were asked for, with the rules that they have now.
func (j *Jail) Links() []Link {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Link
	for _, l := range j.links {
		all = append(all, l.Link)
	}
	return all
}
