package main

import (
	"fmt"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// A vassal that has just got a new jail keeps it, and its app, when the router
// dies: that the old jail left is nothing that the new one lost.
func TestRouterDeathAfterAnEditCostsNoApp(t *testing.T) {
	const vassals = 12
	ini := func(version int) string {
		return fmt.Sprintf("[uwsgi]\ntuntap-device = eth0\ntuntap-device-address = auto\n"+
			"tuntap-device-mtu = %d\ncommand = /bin/sleep infinity\n", 1400+version)
	}
	inis := map[string]string{}
	for i := range vassals {
		inis[fmt.Sprintf("v%d", i)] = ini(1)
	}
	r := newRealm(t, nativeNetwork, inis)
	before := map[string]emperor.Status{}
	for name := range inis {
		before[name] = r.awaitState(name, emperor.Running)
	}
	for name := range inis {
		r.drop(name, ini(2))
	}
	edited := map[string]emperor.Status{}
	for name := range inis {
		edited[name] = r.await(name, "runs with its new ini", func(s emperor.Status) bool {
			return s.State == emperor.Running && s.PID != before[name].PID
		})
	}
	pid := r.routerPID()
	r.kill(pid)
	nettest.Eventually(t, patience, "another router", func() bool { now := r.routerPID(); return now != 0 && now != pid })
	// Lost devices are looked for during a second after the router's word.
	for began := time.Now(); time.Since(began) < 1500*time.Millisecond; {
		all, err := r.api.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if was := edited[s.Name]; s.PID != was.PID {
				t.Fatalf("%s was %+v, is %+v", s.Name, was, s)
			}
		}
	}
}
