package emperor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// What an instance leaves on record in its runtime directory, for the next
// emperor of its name.
const (
	cgroupRecord = "cgroup" // the path of the instance's cgroup
	routerRecord = "router" // pid and start time of the router
	appRecords   = "apps"   // where there is no cgroup: pid and start time of each app

	bridgeRecords = "bridges" // the same of each bridge to a foreign router
	vaultRecord   = "vault"   // the same of the vault

	responderRecord = "responder" // the same of the responder
	formerResponder = "responder.former"
	hostsFolder     = "hosts" // what is each vassal's /etc/hosts

	outFolder = "out" // the pipes that apps write to

	// LogPipe is where our own processes write, if the emperor has a logto. It is
	// opened before leftovers are ended, and may have been the emperor's before.
	LogPipe = "log"
)

// The sockets, in the runtime directory, are where the next emperor comes to the
// vault and to the router. The groups are cgroups below the instance's, of our
// own processes.
const (
	VaultSocket  = "vault.sock"
	RouterSocket = "router.sock"
	VaultGroup   = "vault"
	RouterGroup  = "router"

	ResponderGroup = "responder"
)

// EndLeftovers ends what a killed emperor of this instance has left and orphans
// does not have: the router, all other processes by their cgroup, and the files
// of the runtime directory. It needs the lock. Devices and namespaces go with
// their last descriptors.
func (i *Instance) EndLeftovers(ctx context.Context, log *slog.Logger, orphans *Orphans) error {
	if orphans.Empty() {
		if err := endProcess(i.Path(vaultRecord), nil); err != nil {
			return fmt.Errorf("end the leftover vault: %w", err)
		}
		if err := errors.Join(endProcess(i.Path(responderRecord), nil), endProcess(i.Path(formerResponder), nil)); err != nil {
			return fmt.Errorf("end the leftover responder: %w", err)
		}
		if orphans != nil && !orphans.Router {
			orphans = nil
		}
	}
	if orphans == nil || !orphans.Router {
		if err := endProcess(i.Path(routerRecord), askRouter); err != nil {
			return fmt.Errorf("end the leftover router: %w", err)
		}
	}
	// gofail: var leftoverRouterEnded struct{}
	old, err := i.oldCgroup()
	if err == nil && old != "" {
		log.Info("ending what a killed emperor left", "cgroup", string(old))
		err = errors.Join(orphans.endOthers(ctx, old), old.RemoveLeaf())
	}
	if err := errors.Join(err, i.endBridges(), i.endApps(orphans), i.endCgroups(ctx, orphans), i.endLimits(ctx, orphans.sparesLimits)); err != nil {
		return fmt.Errorf("end leftovers: %w", err)
	}
	// gofail: var leftoverProcessesEnded struct{}
	return i.clearRuntime(".", orphans)
}

// oldCgroup is the cgroup of the emperor before; empty: there is none.
func (i *Instance) oldCgroup() (vassal.Cgroup, error) {
	b, err := os.ReadFile(i.Path(cgroupRecord))
	if err != nil {
		return "", nil //nolint:nilerr // without a record there was none
	}
	old := vassal.Cgroup(strings.TrimSpace(string(b)))
	if filepath.Base(string(old)) != i.cgroupName() {
		return "", fmt.Errorf("%s names %q, which is no cgroup of instance %q; remove the file", i.Path(cgroupRecord), old, i.Name)
	}
	return old, nil
}

// clearRuntime removes from a folder of the runtime directory what is no orphan's.
func (i *Instance) clearRuntime(folder string, orphans *Orphans) error {
	entries, err := os.ReadDir(i.Path(folder))
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case path == "lock" || path == LogPipe || path == rulesRecord || orphans.sparesFile(folder, e.Name()):
		case folder == "." && e.IsDir() && orphans != nil:
			errs = append(errs, i.clearRuntime(path, orphans))
		default:
			errs = append(errs, os.RemoveAll(i.Path(path)))
		}
	}
	return errors.Join(errs...)
}

func (i *Instance) cgroupName() string { return "fiefdom-" + i.Name }

// MakeCgroup makes the instance's cgroup below the emperor's own and records
// it before anything is cloned into it. Where there is no v2 tree it is empty,
// and the error says so. Where there are orphans it is theirs.
func (i *Instance) MakeCgroup() (vassal.Cgroup, error) {
	if old, err := i.oldCgroup(); err == nil && old != "" {
		return vassal.Cgroup(filepath.Dir(string(old))).Make(i.cgroupName())
	}
	own, err := vassal.DelegatedCgroup()
	if err != nil {
		return "", err
	}
	c, err := own.Make(i.cgroupName())
	if err != nil {
		return "", err
	}
	// gofail: var instanceCgroupMade struct{}
	return c, os.WriteFile(i.Path(cgroupRecord), []byte(c), 0o600)
}

// recordApp notes an app that is in no cgroup of the instance: its children can
// be found by its namespace, if they can.
func (i *Instance) recordApp(vassal string, pid int) error {
	if err := os.MkdirAll(i.Path(appRecords), 0o700); err != nil {
		return err
	}
	return recordProcess(i.Path(appRecords, safeName(vassal)), pid)
}

func (i *Instance) forgetApp(vassal string) error {
	err := os.Remove(i.Path(appRecords, safeName(vassal)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its cgroup is the record, or it had no process of its own
	}
	return err
}

// endApps ends the recorded apps that still live, with all of their jails. A
// namespace's inode is used again by others as soon as it is free; that of a
// process which is surely ours is not.
func (i *Instance) endApps(orphans *Orphans) error {
	entries, err := os.ReadDir(i.Path(appRecords))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if orphans.sparesFile(appRecords, e.Name()) {
			continue
		}
		errs = append(errs, endProcess(i.Path(appRecords, e.Name()), func(process *os.File) error {
			inode, err := vassal.NamespaceOf(process)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				return nil // it has ended meanwhile, with another of its jail
			}
			if err != nil || inode == vassal.OwnNamespace() {
				return err
			}
			return vassal.KillNamespace(inode)
		}))
	}
	return errors.Join(errs...)
}

// RecordBridge notes which process bridges a device to a foreign router.
func (i *Instance) RecordBridge(name string, pid int) error {
	if err := os.MkdirAll(i.Path(bridgeRecords), 0o700); err != nil {
		return err
	}
	return recordProcess(i.Path(bridgeRecords, safeName(name)), pid)
}

// ForgetBridge takes that back.
func (i *Instance) ForgetBridge(name string) error {
	return os.Remove(i.Path(bridgeRecords, safeName(name)))
}

// endBridges ends the recorded bridges that still live.
func (i *Instance) endBridges() error {
	entries, err := os.ReadDir(i.Path(bridgeRecords))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, endProcess(i.Path(bridgeRecords, e.Name()), nil))
	}
	return errors.Join(errs...)
}

// RecordVault notes which process is the vault.
func (i *Instance) RecordVault(pid int) error { return recordProcess(i.Path(vaultRecord), pid) }

// RecordRouter notes which process is the router.
func (i *Instance) RecordRouter(pid int) error { return recordProcess(i.Path(routerRecord), pid) }

// RecordResponder notes which process is the responder.
func (i *Instance) RecordResponder(pid int) error { return recordProcess(i.Path(responderRecord), pid) }

// FormerResponder puts the one on record aside, where it is found until it has
// ended. It answers until end, which does nothing if there is none.
func (i *Instance) FormerResponder() (end func() error, err error) {
	record, former := i.Path(responderRecord), i.Path(formerResponder)
	end = func() error {
		if err := endProcess(former, nil); err != nil {
			return err
		}
		if err := os.Remove(former); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := os.Stat(record); errors.Is(err, fs.ErrNotExist) {
		return end, nil
	}
	if err := end(); err != nil { // of an emperor who was killed while he had two
		return nil, err
	}
	return end, os.Rename(record, former)
}
