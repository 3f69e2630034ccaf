// Package emperor decides who lives and who dies: it watches the inis, starts
// vassals, starts them again, reloads and stops them, and tells about it by
// the control API.
//
// One goroutine (emperor.go) owns all vassals. Everything that takes time
// (expanding inis, starting, stopping) runs beside it and comes back as an
// event. What an event means in a state is one table (states.go):
//
//	file seen ─► expander ─ bad ini ─► invalid ──(file changes)──► expander
//	                │ good
//	                ▼
//	             starting ── jail, init stage, registration ─────► running
//	                │ ▲ ▲                                            │ file changed: expand, check,
//	         failed │ │ │ somebody at the door                       │ stop, start with the new ini
//	                │ │ └── sleeping ◄───────────────────────────────┤
//	                │ │        ▲           on demand: tired, or done │
//	                ▼ │ due    │ on demand                           │
//	              backoff ─────┘              exited                 │
//	                 ▲ ◄─────────────────────────────────────────────┤
//	                                                                 │ file gone, stop, TERM
//	              stopped ◄── stopping ◄─────────────────────────────┤
//	                 ▲                                               │ exiled: exit code 26
//	                 └───────────────────────────────────────────────┘
//
// An on demand vassal (demand.go, door.go, sleep.go) sleeps wherever another
// would be started by a good ini or by the end of its back-off.
//
// Vassals that speak uWSGI's emperor protocol (protocol.go) reload themselves
// where their new ini starts the same app, and stay running meanwhile.
//
// A vassal with attached processes has a crew (crew.go): its generation runs no
// app, and every process joins it, with restarts of its own.
//
// Where to look:
//
//	which inis there are     monitor.go look.go distrust.go inis.go
//	what is in them          expander.go read.go common.go attributes.go, under the owner's uid
//	what a vassal gets       resolve.go claims.go leases.go rights.go foreign.go farends.go admit.go wrapper.go limits.go checkhost.go
//	what owners may ask for  policy.go policyoptions.go policyjudge.go policed.go
//	what it publishes        ports.go portholder.go publish.go republish.go portkeep.go publishstatus.go
//	its life                 emperor.go member.go states.go start.go backoff.go router.go ends.go
//	whether it is well       ready.go health.go notify.go
//	the emperor's protocol   protocol.go stats.go orders.go
//	on demand                demand.go address.go door.go sleep.go
//	attached processes       crew.go crewjob.go crewtouch.go cronclock.go processes.go
//	what it writes           output.go logs.go history.go historystore.go logconfig.go
//	beside it                errands.go below.go folder.go exec.go execclient.go
//	for the next emperor     keep.go note.go orphans.go adopt.go adoptcrew.go upgrade.go halt.go
//	the instance itself      config.go instance.go self.go pulse.go
//	what it left             leftovers.go leftcgroups.go leftlimits.go recorded.go
//	what happened            event.go eventkinds.go journal.go journalfile.go journalhandler.go journalapi.go
//	what others are told     api.go apilogs.go client.go inspect.go status.go usage.go metrics.go
//	before anything runs     check.go checktyrant.go checkports.go crosscheck.go
package emperor
