package migrate

var jailRows = []row{
	{names: of("jailed"), side: Vassal, differs: "no longer needed: a vassal with a device always is"},
	{names: of("tuntap-device"), side: Vassal, differs: "the emperor makes and connects it, the app holds neither the device nor the socket, and lives on when the router is gone. " +
		"A router that is not there is an error of the start. IPv6 need not be switched off"},
	{names: of("tuntap-device-rule"), side: Vassal, differs: "masks are what they say, and a line that is no rule stops the start; route and gateway go to far ends that the emperor's ini names (tuntap-router-route, tuntap-router-gateway-peer)"},
	{names: of("uid", "gid", "add-gid"), side: Vassal, differs: "given up for good before anything of the app runs. Without `gid` the app has its user's groups; without `uid`, in a native network, a user of its own"},
	{names: of("no-initgroups"), side: Vassal, missing: "the app has all groups of its user; choose a user with fewer, or write a number that no user has"},
	{names: of("immediate-uid", "immediate-gid"), side: Vassal, missing: "write `uid` and `gid`: they hold before anything of the app runs"},
	{names: of("drop-after-init", "drop-after-apps", "master-as-root"), side: Vassal, missing: "nothing of an app runs as root; what needs it goes into `exec-as-root`, a single right into `cap`"},
	{names: of("cap"), side: Vassal, differs: "exactly these, in every set, so that a command has them too"},
	{names: of("emperor-cap", "vassal-cap", "vassals-cap"), side: Vassal, missing: emperorsOwn},
	{names: of("chdir"), side: Vassal, differs: "an absolute path; without it a command in a native network begins in /, everything else in the ini's folder"},
	{names: of("chroot"), side: Vassal, differs: "the app begins inside of it, in its /"},
	{names: of("pivot_root", "pivot-root", "unshare", "unshare2", "namespace", "ns", "namespace-net", "ns-net", "namespace-keep-mount"), side: Vassal},
	{names: of("setns", "setns-socket", "setns-socket-skip", "setns-skip"), side: Vassal},
	{names: of("setns-preopen"), side: Vassal, needless: "the namespaces are opened before the root changes"},
	{names: of("refork", "re-fork", "refork-as-root", "re-fork-as-root", "refork-post-jail", "re-fork-post-jail"), side: Vassal, needless: "every start is a new process, born in its namespaces"},
	{names: of("cgroup", "cgroup-opt", "cgroup-dir-mode"), side: Vassal},
	{names: of("limit-as", "limit-nproc", "max-fd", "prio", "cpu-affinity", "never-swap", "ksm"), side: Vassal},
	{names: of("umask"), side: Vassal},
	{names: of("env"), side: Vassal, differs: "in native networks and under `emperor-tyrant` the app finds nothing of the emperor's environment but LANG, LC_ALL and TZ"},
	{names: of("wait-for-fs", "wait-for-file", "wait-for-dir", "wait-for-socket", "wait-for-fs-timeout", "wait-for-socket-timeout"), side: Vassal, missing: "write `hook-as-root = wait_for_file:PATH`, or `wait_for_fs`, `wait_for_dir`, `wait_for_socket`"},
	{names: of("wait-for-mountpoint"), side: Vassal, missing: "write `exec-as-root = until mountpoint -q PATH; do sleep 1; done`"},
	{names: of("wait-for-iface", "wait-for-interface", "wait-iface", "wait-interface", "wait-for-iface-timeout", "wait-for-interface-timeout", "wait-iface-timeout", "wait-interface-timeout"), side: Vassal, missing: "the vassal's own devices are there before the first hook; for others write `exec-as-root = until ip link show DEV; do sleep 1; done`"},
	{names: of("tuntap-router", "tuntap-router-firewall-in", "tuntap-router-firewall-out", "tuntap-router-route", "tuntap-router-stats"), side: Vassal, missing: "networks belong into the emperor's file"},
	{names: of("emperor", "early-emperor"), side: Vassal, missing: "no emperor below an emperor: add its folder to the first one's file, with another `emperor`"},
}

// rotation is what our rotation of logs does otherwise.
const rotation = "the emperor rotates, so the file never grows beyond `log-maxsize`; 10 rotated files are kept unless `log-backups` says otherwise; a backup's name is in the log's folder, and files to touch are absolute paths"

var appRows = []row{
	{names: of("unprivileged-binary-patch", "unprivileged-binary-patch-arg", "privileged-binary-patch", "privileged-binary-patch-arg"), side: Vassal, differs: "the app, in our words `command`: run without a shell (a patch without `-arg` gets `--ini FILE`), under the `uid` if there is one, and still supervised, " +
		"with its signals, its log and its restarts"},
	{names: of("binary-path"), side: Vassal},
	{names: of("reload-mercy"), side: Vassal, differs: "10 seconds without it, for stopping too; what is left then is killed, whatever it has become"},
	{names: of("logto"), side: Vassal, differs: "an absolute path; without it the output is in the emperor's log, and the last of it in `fiefdom logs`"},
	{names: of("logto2"), side: Vassal, differs: "an absolute path outside the chroot"},
	{names: of("daemonize", "daemonize2", "log-master"), side: Vassal, app: true, missing: "write `logto`; a command stays in the foreground"},
	{names: of("log-maxsize", "log-backupname", "log-reopen", "log-truncate", "touch-logreopen", "touch-logrotate"), side: Vassal, differs: rotation},
	{names: of("log-syslog"), side: Vassal, differs: "its value is no name: the output is there as `fiefdom/NAME`, and `log-syslog-address` of the emperor's ini says where"},
	{names: of("attach-daemon", "attach-daemon2", "attach-control-daemon", "smart-attach-daemon", "smart-attach-daemon2"), side: Vassal, app: true},
	{names: of("cron", "cron2", "unique-cron"), side: Vassal, app: true},
	{names: of("legion-cron", "cron-legion", "unique-legion-cron", "unique-cron-legion", "legion-attach-daemon", "legion-smart-attach-daemon", "legion-smart-attach-daemon2"), side: Vassal, app: true, missing: "legions are the uwsgi's; a command's belong to no legion"},
	{names: of("touch-reload", "touch-chain-reload", "fs-reload", "master-fifo"), side: Vassal, app: true, missing: byCommand},
	{names: of("pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"), side: Vassal, app: true, missing: "`fiefdom status NAME` and `ps --json` know the pid"},
	{names: of("envdir", "early-envdir", "unenv"), side: Vassal, app: true, missing: "write `env` lines"},
	{names: of("plugin", "plugins", "need-plugin", "need-plugins"), side: Vassal, app: true, needless: "the tuntap plugin's job is done here, and a command has no plugins"},
	{names: of("heartbeat", "idle", "die-on-idle"), side: Vassal, app: true, needless: "a command has no requests to count, and no heart to beat unless it speaks the emperor protocol"},
}
