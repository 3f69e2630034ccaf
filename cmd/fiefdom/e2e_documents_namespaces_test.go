package main

import "testing"

// Namespaces: what clone, unshare and setns give. (The roots of pivot_root and
// namespace are in TestNamespacesDocument.)
func TestDocumentNamespaces(t *testing.T) {
	const sees = `hostname; for n in net uts ipc mnt pid; do test "$(readlink /proc/self/ns/$n)" = "$(cat /run/t/host-$n)" && echo $n; done | xargs`
	const before = `for n in net uts ipc mnt pid; do readlink /proc/self/ns/$n >host-$n; done`
	keep(t, []promise{
		{
			what:    "emperor-use-clone parts a vassal from the host, all of it or what is named",
			emperor: plainEmperor + "emperor-use-clone = fs,net,ipc,uts,pid\n",
			before:  before,
			files: map[string]string{
				"vassals/all.ini": "[uwsgi]\nexec-as-root = hostname jailed\nexec-as-root = ifconfig lo up\ncommand = sleep 1000\n",
			},
			acts: []act{
				runs("all"),
				inside("all", sees, "jailed\n\n"),
				inside("all", "ping -c 1 -W 5 127.0.0.1 | grep -c ' 0% packet loss'", "1\n"),
				does("test $(hostname) != jailed"),
			},
		},
		{
			what:   "unshare takes a vassal out by itself, and setns brings another in",
			before: before,
			files: map[string]string{
				"vassals/own.ini":   "[uwsgi]\nunshare = ipc,uts\nhook-post-jail = hostname:own\nsetns-socket = /run/t/ns.socket\nsetns-socket-skip = ipc\ncommand = sleep 1000\n",
				"vassals/guest.ini": "[uwsgi]\nsetns = /run/t/ns.socket\ncommand = sleep 1000\n",
			},
			acts: []act{
				runs("own", "guest"),
				inside("own", sees, "own\nnet mnt pid\n"),
				inside("guest", sees, "own\nnet ipc mnt pid\n"),
				prints("stat -c %a ns.socket", "600\n"),
				removes("own"),
				same("guest"),
				removes("guest"),
			},
		},
	})
}
