// Package vassal is one jailed process: the options of its ini, the jail that
// its packets live in, and the way from a clone to its app.
//
// The emperor's side is jail.go (namespace, devices, registration), start.go
// (the clone) and cgroup.go (the end). The child's side is init.go: the init
// stage, our binary, is born in the jail, does the steps below in this order
// and becomes the app by exec, so that nothing of ours stays beside it. Only
// with a pid namespace it stays, as a tiny reaper with pid 1 (reaper.go).
//
//	emperor                                 init stage
//	namespace, devices, loopback,
//	address, route, hand-over
//	(or a bridge to a foreign router)
//	clone into namespaces and cgroup  ────► private mounts
//	plan                              ────► hooks post-jail, chroot, hooks as-root
//	                                  ◄──── waiting
//	echo answered by the gateway
//	go                                ────► capabilities, no_new_privs, gid, uid,
//	                                        hooks as-user, chdir
//	                                  ◄──── end of file: it is the app now (or an error)
//
// A generation without an app lays the ground (ground.go) for processes that join
// it: an init stage each (init_join.go), which enters where another runs hooks.
//
// An app that speaks uWSGI's emperor protocol keeps one descriptor more, its end
// of a pair of datagram sockets (channel.go).
package vassal
