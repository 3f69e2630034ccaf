package migrate

const (
	serviceManager = "let the service manager that starts the emperor do it"
	emperorsOutput = "write `logto` or `log-syslog`; without them the emperor logs to standard error"
	byCommand      = "`fiefdom start`, `stop`, `restart` and `reload` do that; so does touching a vassal's ini"
	noHelp         = "nobody comes to the help of a vassal: give it more processes, or let its uwsgi grow by itself (`cheaper`)"
	asEachVassal   = "the emperor stays root; write it into each vassal's ini, with `vassal-set` into all of them, or use `emperor-tyrant`"
)

var emperorRows = []row{
	{names: of("emperor"), side: Emperor, differs: "a folder, `dir://`, `glob://` or a pattern, of files that end in .ini. For other monitors let a script write inis into a folder. " +
		"A vassal is known by its file's name without .ini, so two folders cannot both have the same one"},
	{names: of("early-emperor"), side: Emperor, needless: "the emperor comes before everything else"},
	{names: of("emperor-freq"), side: Emperor, differs: "the kernel tells of changes at once; this is the net under it"},
	{names: of("emperor-stats", "emperor-stats-server", "emperor-pidfile", "emperor-procname"), side: Emperor},
	{names: of("emperor-tyrant"), side: Emperor, differs: "each ini is read under its owner's uid. Hooks, `cap`, `chroot`, `add-gid` and other ids than the owner's are errors of that vassal, " +
		"and so is an ini that root owns"},
	{names: of("emperor-nofollow", "emperor-tyrant-nofollow"), side: Emperor},
	{names: of("emperor-required-heartbeat"), side: Emperor},
	{names: of("emperor-curse-tolerance"), side: Emperor, differs: "10 seconds without it, not 30; a vassal's `reload-mercy` comes first; what is left then is killed, whatever it has become"},
	{names: of("emperor-throttle"), side: Emperor, differs: "the delay of the one vassal that fails, from its second early death on (100 ms without it); the first restart comes at once, and nobody else waits"},
	{names: of("emperor-max-throttle"), side: Emperor, differs: "one minute without it, not three"},
	{names: of("emperor-no-blacklist"), side: Emperor, differs: "there is no blacklist, only the delay: a change, a touch or `fiefdom restart` ends it at once. This keeps it from growing"},
	{names: of("emperor-graceful-shutdown"), side: Emperor},
	{names: of("emperor-use-clone"), side: Emperor, differs: "done for each start; a vassal with a device has a network of its own even without it, and one with `pid` and `fs` has its own /proc and a reaper as pid 1"},
	{names: of("emperor-cap", "vassal-cap", "vassals-cap"), side: Emperor},
	{names: of("vassal-set", "vassals-set", "vassals-include", "vassals-include-before", "vassals-inherit", "vassals-inherit-before"), side: Emperor},
	{names: of("vassals-start-hook", "vassals-stop-hook"), side: Emperor},
	{names: of("emperor-extra-extension", "emperor-extra-ext", "emperor-magic-exec"), side: Emperor},
	{names: of("emperor-wrapper", "emperor-wrapper-override", "emperor-wrapper-fallback"), side: Emperor},
	{names: of("emperor-on-demand-extension", "emperor-on-demand-ext", "emperor-on-demand-directory", "emperor-on-demand-dir", "emperor-on-demand-exec"), side: Emperor},
	{names: of("emperor-collect-attribute", "emperor-collect-attr"), side: Emperor, differs: "shown by `fiefdom status --json`, and not lost when the vassal is started again; `[emperor]` is read in the ini's dialect, under its owner"},
	{names: of("emperor-wrapper-attr"), side: Emperor, differs: "the program runs in the jail under the app's user, in place of `emperor-wrapper`; a vassal with a command has none. The name need not be collected too"},
	{names: of("emperor-chdir-attr"), side: Emperor, differs: "the app goes there, with its own rights, if its ini has no `chdir`; hooks begin where they do without it"},
	{names: of("emperor-proxy-socket"), side: Emperor, missing: "every vassal is started by the emperor itself, from an ini"},
	{names: of("emperor-broodlord"), side: Emperor, missing: noHelp},
	{names: of("vassal-sos", "vassal-sos-backlog"), missing: noHelp},
	{names: of("emperor-tyrant-initgroups"), side: Emperor, missing: "a vassal has its owner's uid and the file's group alone"},
	{names: of("emperor-command-socket", "emperor-trigger-socket", "emperor-wait-for-command", "emperor-wait-for-command-ignore"), side: Emperor, missing: byCommand},
	{names: of("emperor-use-fork-server", "emperor-fork-server-attr", "vassal-fork-base"), side: Emperor, missing: "the emperor starts each vassal itself; without it a vassal only starts more slowly"},
	{names: of("emperor-subreaper"), side: Emperor, missing: "leave it out: what a vassal started ends with it, by its cgroup"},
	{names: of("imperial-monitor-list", "imperial-monitors-list"), side: Emperor, needless: "it only prints which monitors there are"},
}

// processRows are about the uwsgi process that was the emperor.
var processRows = []row{
	{names: of("master"), side: Emperor, needless: "the emperor needs no process above it; the service manager starts it again"},
	{names: of("plugin", "plugins", "need-plugin", "need-plugins", "plugin-dir", "plugins-dir", "autoload"), side: Emperor, needless: "monitors, router and jails are built in"},
	{names: of("processes", "workers", "threads", "enable-threads"), side: Emperor, needless: "the emperor answers no requests"},
	{names: of("vacuum"), side: Emperor, needless: "the emperor removes what it made anyway"},
	{names: of("die-on-term"), side: Emperor, needless: "TERM always ends the emperor and its vassals"},
	{names: of("no-orphans"), side: Emperor, needless: "the next emperor adopts what one that was killed has left (`emperor-orphans`)"},
	{names: of("log-date", "logdate", "log-micros"), side: Emperor, needless: "each line has its time"},
	{names: of("chown-socket"), side: Emperor, needless: "the emperor connects the devices itself, so nobody else needs a router's socket"},
	{names: of("uid", "gid", "immediate-uid", "immediate-gid"), side: Emperor, differs: "the user and group of every vassal whose ini has none of its own; the emperor itself stays root, so hooks of its vassals are root's. " +
		"Under `emperor-tyrant` it does nothing"},
	{names: of("add-gid", "cap", "drop-after-init", "drop-after-apps"), side: Emperor, missing: asEachVassal},
	{names: of("env", "envdir", "early-envdir", "unenv"), side: Emperor, missing: "write `env` into the vassals' inis, or with `vassal-set` into all of them; in native networks and under `emperor-tyrant` an app finds nothing of the emperor's environment"},
	{names: of("chdir", "chdir2", "force-cwd"), side: Emperor, missing: "write absolute paths, or start the emperor in that folder"},
	{names: of("umask"), side: Emperor, missing: "the emperor's is 022; a vassal's is in its ini"},
	{names: of("daemonize", "daemonize2"), side: Emperor, missing: "it stays in the foreground; " + serviceManager},
	{names: of("pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"), side: Emperor},
	{names: of("logto", "logto2"), side: Emperor, differs: "from when the emperor has its instance; what is wrong before goes to standard error"},
	{names: of("log-maxsize", "log-backupname", "log-reopen", "log-truncate", "touch-logreopen", "touch-logrotate"), side: Emperor, differs: rotation},
	{names: of("log-syslog"), side: Emperor, differs: "its value is no name: the log is there as `fiefdom`"},
	{names: of("logger", "req-logger", "log-master", "log-socket"), side: Emperor, missing: emperorsOutput},
	{names: of("stats", "stats-server", "stats-http"), side: Emperor, missing: "`fiefdom ps --json` and `emperor-stats` say how the vassals are"},
	{names: of("master-fifo", "touch-reload", "touch-chain-reload", "fs-reload", "exit-on-reload"), side: Emperor, missing: byCommand},
	{names: of("max-fd", "limit-as", "limit-nproc", "prio", "cpu-affinity", "cgroup", "cgroup-opt", "cgroup-dir-mode"), side: Emperor, missing: serviceManager + ", or write it into the vassals' inis"},
	{names: of("chroot", "pivot_root", "pivot-root", "unshare", "unshare2", "setns", "namespace", "ns", "jailed"), side: Emperor, missing: "the emperor itself is not jailed; write it into the vassals' inis"},
	{names: of("tuntap-device", "tuntap-device-rule"), side: Emperor, missing: "devices are vassals'; write it into a vassal's ini"},
	{names: of("attach-daemon", "attach-daemon2", "attach-control-daemon", "smart-attach-daemon", "smart-attach-daemon2", "cron", "cron2", "unique-cron"), side: Emperor, missing: "give it a vassal's ini of its own"},
}

var routerRows = []row{
	{names: of("tuntap-router"), side: Emperor, differs: "the router is a process of its own without rights, and may die without a link going down. The first packet of a vassal registers its address; " +
		"from then on nobody else may send from it. IPv6 passes if the router has an IPv6 address, and never disturbs if not"},
	{names: of("tuntap-router-firewall-in", "tuntap-router-firewall-out"), side: Emperor, differs: "the words mean the same, but a line that is no rule stops the start; `check` names it. Masks are what they say"},
	{names: of("tuntap-router-route"), side: Emperor, differs: "datagrams go to the named routers, and are taken from them alone; never the host's loopback"},
	{names: of("tuntap-router-stats"), side: Emperor, differs: "the same document; `pid` is the router's"},
	{names: of("tuntap-use-credentials"), differs: "for devices and routers of others; of its own vassals the emperor knows who they are. A function that assigns addresses is not called"},
	{names: of("chmod-socket"), side: Emperor, differs: "the mode of the routers' sockets, 0600 without it"},
}
