package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// year is what clocks are wrong by whose battery is empty.
const year = 365 * 24 * time.Hour

// A clock that jumps restarts nobody. Within an emperor times are compared by
// the monotonic clock (internal/archtest keeps that so); this is about what one
// emperor writes down and the next one reads: all of it is moved by the jump,
// which to the next one is the same as if his clock had been. // T45
func TestClockJumpsBetweenEmperors(t *testing.T) {
	t.Parallel()
	vassals := map[string]string{
		"sick":    "[uwsgi]\ncommand = /bin/sh -c \"exit 3\"\n", // in its back-off
		"healthy": agentIni + "health = tcp:8000\nhealth-interval = 1\nlogto = /run/t/healthy.log\nlog-maxage = 1d\n",
		"stopped": agentIni,
	}
	maps.Copy(vassals, survivors)
	r := newRealm(t, nativeNetwork+"emperor-throttle = 200\nemperor-max-throttle = 2000\n", vassals)
	before := r.all()
	before["healthy"] = r.reach("healthy")
	r.mustRun("stop", "stopped")
	r.await("sick", "has died often", func(s emperor.Status) bool { return s.Deaths > 4 })
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year} {
		starts := r.ps("sick").Starts
		r.die()
		r.shiftClock(jump)
		r.start()
		r.quiet()
		for name, s := range before {
			now := r.reach(name)
			now.Since = s.Since // what it shows is another clock's
			if diff := unlike(s, now); diff != "" {
				t.Errorf("after %v: %s: %s", jump, name, diff)
			}
		}
		if s := r.ps("stopped"); s.State != emperor.Stopped {
			t.Errorf("after %v: stopped is %s", jump, s.State)
		}
		s := r.await("sick", "is started again", func(s emperor.Status) bool { return s.Starts > starts })
		if s.Backoff > 2 {
			t.Errorf("after %v: sick waits %v s", jump, s.Backoff)
		}
	}
	// "unhealthy_after" may be there: a check that came before the app listened.
	if text := r.allLogged(); strings.Contains(text, "unhealthy:") || strings.Contains(text, "cannot be adopted") {
		t.Error("somebody is called unhealthy, or was not adopted")
	}
	r.stop(syscall.SIGTERM)
}

// shiftClock moves all times in the vault, while there is no emperor.
func (r *realm) shiftClock(by time.Duration) {
	r.t.Helper()
	r.Run(r.t, "clockshift", "/run/fiefdom/emperor/vault.sock", by.String())
}

// stampText is a time as JSON has it.
var stampText = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^"]*"`)

// clockshift is a program: for a moment it is the vault's emperor.
func clockshift() {
	runtime.UnlockOSThread()
	if err := shiftVault(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func shiftVault(path, text string) error {
	by, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	v := &vault.Vault{Path: path}
	items, err := v.Open()
	if err != nil {
		return err
	}
	shifted := 0
	for _, i := range items {
		note := stampText.ReplaceAllFunc(i.Note, func(b []byte) []byte {
			var at time.Time
			if json.Unmarshal(b, &at) != nil || at.IsZero() {
				return b
			}
			shifted++
			b, err = json.Marshal(at.Add(by))
			return b
		})
		hear := ""
		if channel := i.Files.Take(vassal.ChannelFile); channel != nil {
			hear = vassal.ChannelFile
			if err := errors.Join(i.Files.Add(hear, channel), channel.Close()); err != nil {
				return err
			}
		}
		if err := v.Put(i.Key, json.RawMessage(note), i.Files, hear); err != nil {
			return err
		}
	}
	if shifted == 0 {
		return fmt.Errorf("no time in %d notes", len(items))
	}
	return err
}
