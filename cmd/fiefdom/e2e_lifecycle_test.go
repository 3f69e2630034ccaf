package main

import (
	"testing"
)

func TestDroppedIniRunsAndIsReachable(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, nil)
	r.drop("blog", agentIni)
	s := r.reach("blog")
	t.Logf("%+v", s)
}
