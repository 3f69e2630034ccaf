package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const optionsPage = "../../docs/options.md"

func TestOptionsPageIsUpToDate(t *testing.T) {
	page, err := os.ReadFile(optionsPage)
	if err != nil {
		t.Fatal(err)
	}
	var made strings.Builder
	if err := writeMarkdown(&made, allDocs()); err != nil {
		t.Fatal(err)
	}
	if made.String() != string(page) {
		t.Errorf("%s is not what the tables say; make it anew: bin/fiefdom options --markdown >docs/options.md", optionsPage)
	}
}

func TestEveryOptionIsExplained(t *testing.T) {
	// uWSGI's words for the router's side and the device's, for the routers' sockets and a vassal's, for all vassals and for one.
	bothSides := []string{
		"tuntap-use-credentials", "chmod-socket", "uid", "gid", "logto",
		"log-maxsize", "log-maxage", "log-backups", "log-backupname", "log-compress", "log-truncate", "log-reopen", "touch-logreopen", "touch-logrotate", "log-syslog",
		"limit-cpu", "limit-memory", "limit-pids", "limit-io", "oom-score-adj", "confine",
		"network", "tuntap-device", "tuntap-device-address", "unshare", "publish", "writable", "bind", "rootfs", "listen-ports", // a vassal's, and their bounds in a policy
	}
	seen := map[string]string{}
	for _, d := range allDocs() {
		if d.Meaning == "" || d.Kind == "" || d.Group == "" {
			t.Errorf("option %q lacks a meaning, a kind or a group: %+v", d.Name, d)
		}
		if group, ok := seen[d.Name]; ok && !slices.Contains(bothSides, d.Name) {
			t.Errorf("option %q is in two tables, %s and %s", d.Name, group, d.Group)
		}
		seen[d.Name] = d.Group
	}
	if len(seen) < 40 {
		t.Errorf("only %d options: is a table missing?", len(seen))
	}
}

func TestChosen(t *testing.T) {
	all := allDocs()
	if got := chosen(all, nil); len(got) != len(all) {
		t.Errorf("no word chooses %d options of %d", len(got), len(all))
	}
	for _, d := range chosen(all, []string{"tuntap-device", "emperor"}) {
		if !strings.Contains(d.Name, "tuntap-device") && !strings.Contains(d.Name, "emperor") {
			t.Errorf("chose %q", d.Name)
		}
	}
	if got := chosen(all, []string{"no such word"}); len(got) != 0 {
		t.Errorf("chose %v", got)
	}
}
