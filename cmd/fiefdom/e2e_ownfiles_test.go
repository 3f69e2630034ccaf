package main

import (
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// Vassals have an /etc/resolv.conf and an /etc/hosts of their own, also after the
// host's tools have put others in place of the host's.
func TestOwnFilesOutliveTheHosts(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/etc/hosts", "127.0.0.1 localhost\n")
	const blog = "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = 10.9.7.7\n"
	r.drop("blog", blog)
	r.drop("crew", strings.Replace(blog, "7.7", "7.8", 1)+"attach-daemon = AGENT serve :9000\n")
	r.start()
	r.reach("blog")
	r.reach("crew")
	sees := func(name string) bool {
		resolv, hosts := r.mustRun("exec", name, "--", "cat", "/etc/resolv.conf"), r.mustRun("exec", name, "--", "cat", "/etc/hosts")
		return strings.Contains(resolv, "nameserver 10.9.0.1\n") && strings.Contains(hosts, " "+name+"\n") && !strings.Contains(hosts, "fiefdom begin")
	}
	replace := func(path, text string) {
		r.write(path+".new", text)
		r.Run(t, "mv", path+".new", path)
	}
	all := func(when string) {
		t.Helper()
		for _, name := range []string{"blog", "crew"} {
			nettest.Eventually(t, patience, name+" "+when, func() bool { return sees(name) })
		}
	}
	all("at first")
	replace("/etc/resolv.conf", "nameserver 198.51.100.3\n")
	if sees("blog") {
		t.Log("the mount has outlived the rename")
	}
	all("with another resolv.conf")
	r.mustRun("hosts", "--install")
	all("with names in the host's file")
	r.die()
	replace("/etc/hosts", "127.0.0.1 localhost\n")
	r.start()
	all("with another hosts file while no emperor ran")
}
