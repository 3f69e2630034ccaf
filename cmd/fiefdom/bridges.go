package main

import (
	"os"

	"fiefdom/tuntap/control"
	"fiefdom/vassal"
)

// bridgeUID is the bridges': each of them is in a pid namespace of its own, so
// that one may do for all.
const bridgeUID = 65520

// makeBridges joins the bridges' keeper with the vassals' jails.
func (r *runner) makeBridges(cgroup vassal.Cgroup) (vassal.Bridger, error) {
	keeper := &control.Bridges{Log: r.log, UID: bridgeUID, GID: bridgeUID, Emperor: os.Getpid()}
	if cgroup == "" {
		keeper.Record, keeper.Forget = r.instance.RecordBridge, r.instance.ForgetBridge
	} else {
		child, err := cgroup.Make("bridges")
		if err != nil {
			return nil, err
		}
		if keeper.Cgroup, err = child.Open(); err != nil {
			return nil, err
		}
		r.later(keeper.Cgroup.Close)
	}
	return func(b vassal.Bridging) (vassal.Bridge, error) {
		bridge, err := keeper.Start(control.BridgeConfig(b))
		if err != nil {
			return vassal.Bridge{}, err
		}
		return vassal.Bridge{Stop: bridge.Stop, Trouble: bridge.Trouble}, nil
	}, nil
}
