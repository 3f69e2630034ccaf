package main

import (
	"context"

	"fiefdom/emperor"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// newVault is the vault's side here, without a process.
func (r *runner) newVault() *vault.Vault {
	return &vault.Vault{Path: r.instance.Path(emperor.VaultSocket), Log: r.log, Record: r.instance.RecordVault, UID: bridgeUID}
}

// findOrphans looks into the vault that a killed emperor has left. One that
// cannot be read is as good as none: what is in it is ended.
func (r *runner) findOrphans() *emperor.Orphans {
	if r.config.Orphans == emperor.KillOrphans {
		return nil
	}
	v := r.newVault()
	items, err := v.Open()
	if err != nil {
		r.log.Error("nobody can be adopted", "err", err)
	}
	r.findSockets(items)
	orphans := emperor.FindOrphans(items, r.log)
	if orphans.Empty() {
		v.End()
		return nil
	}
	r.vault = v
	return orphans
}

// makeVault starts the vault for what the next emperor would need, unless the
// orphans' is there.
func (r *runner) makeVault(cgroup vassal.Cgroup) error {
	if r.config.Orphans == emperor.KillOrphans {
		return nil
	}
	if r.vault == nil {
		r.vault = r.newVault()
	}
	r.later(func() error {
		if !r.leaves {
			r.vault.End()
		}
		return nil
	})
	if cgroup != "" {
		child, err := cgroup.Make(emperor.VaultGroup)
		if err != nil {
			return err
		}
		if r.vault.Cgroup, err = child.Open(); err != nil {
			return err
		}
		r.later(r.vault.Cgroup.Close)
	}
	r.vault.Refill = func(ctx context.Context) {
		r.emperor.Refill(ctx)
		r.refillSockets()
	}
	r.emperor.Vault = r.vault
	if err := r.vault.Start(); err != nil {
		r.log.Error("no vault: the vassals of a killed emperor would not be adopted", "err", err)
	}
	return nil
}
