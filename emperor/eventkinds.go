package emperor

import (
	"log/slog"
	"time"
)

// The kinds of events that code asks for.
const (
	KindRouter = "router-restarted"
	KindReload = "reload"
	KindLost   = "lost"
)

// Kinds says what each kind of event means; docs/monitoring.md shows them.
var Kinds = map[string]string{
	"found":            "an ini appeared",
	"changed":          "an ini has other content",
	"removed":          "an ini is gone; its vassal ends",
	"invalid":          "an ini is bad; `err` has its errors, one a line",
	"refused-ini":      "tyrant mode: an ini is where others could have put it",
	"beyond-policy":    "tyrant mode: a vassal asks for more than the operator's policy has by now; it ends",
	"owner-changed":    "tyrant mode: an ini changed hands; its vassal ends",
	"starting":         "a vassal's start began",
	"running":          "a vassal's app runs",
	"failed":           "a vassal could not be started; `reason`, and `next`: the back-off",
	"died":             "a vassal's app ended by itself; `reason`, and `next`: the back-off",
	"out-of-memory":    "the kernel killed processes of a vassal that reached its memory limit",
	"no-heartbeat":     "a vassal was silent for too long and is killed",
	"exile":            "a vassal asked not to be started again (exit code 26)",
	"adopted":          "a vassal that a former emperor started goes on under this one",
	"reloaded":         "a vassal took its new ini without a new start",
	"loyal":            "a vassal has proved to work",
	"asleep":           "a vassal on demand sleeps",
	"woke":             "somebody is at the door of a sleeping vassal",
	"stopping":         "a vassal was asked to stop",
	"killed":           "a vassal did not stop within its mercy",
	"stopped":          "a vassal is down because somebody said so",
	"gone":             "a vassal's ini is gone, and so is all of it",
	"process-running":  "an attached process runs",
	"process-died":     "an attached process ended; `process`, `reason`, `next`",
	"device-lost":      "a vassal's device is gone; it starts in a new jail",
	"refused":          "a peer claimed an address that is not its own to have; `addr`, `holder`, `reason`",
	"spoofed":          "a peer sends from an address that is not its own; told every 10 s at most",
	KindRouter:         "the router ended and is started again",
	"bridge-restarted": "a bridge ended and is started again",
	"names-restarted":  "the responder ended and is started again",
	"names-down":       "the responder does not stay up; vassals' questions for names are not answered",
	"names-up":         "the responder answers again",
	"firewall-mended":  "somebody removed or changed our firewall rules on the host; they are back",
	"rule-added":       "a rule was added while it runs; `chain`, `rule`, and whether it was `saved`",
	"rule-deleted":     "a rule was taken out of force; `chain`, `rule`, `saved`",
	"rules-changed":    "rules of an ini, or of the emperor's, are others now; what runs goes on",
	"rule-lost":        "an unsaved change of a rule is gone, as its file was read again; `chain`, `rule`, `was`",
	"emperor-running":  "the emperor began",
	"emperor-stopping": "the emperor ends, and all vassals with it",
	KindReload:         "all inis are read again (SIGHUP)",
	KindLost:           "events could not be written to the file; `events`: how many",
	"info":             "anything else that the log says",
	"warning":          "anything else that the log warns of",
	"error":            "anything else that went wrong",
}

// kindOf are the kinds of log lines by their texts, which are constants. A kind
// of "" is no event. What is not here is one by its level.
var kindOf = map[string]string{
	"vassal found":                       "found",
	"ini changed":                        "changed",
	"ini removed":                        "removed",
	"bad ini":                            "invalid",
	"ini refused; stopping the vassal":   "refused-ini",
	"vassal running":                     "running",
	"vassal is down":                     "died", // or failed
	"out of memory":                      "out-of-memory",
	"no heartbeat; killing the vassal":   "no-heartbeat",
	"vassal went into exile":             "exile",
	"vassal adopted":                     "adopted",
	"vassal reloaded":                    "reloaded",
	"vassal is loyal":                    "loyal",
	"vassal sleeps":                      "asleep",
	"stopping vassal":                    "stopping",
	"vassal stopped":                     "stopped",
	"vassal gone":                        "gone",
	"process running":                    "process-running",
	"process is down":                    "process-died",
	"address refused":                    "refused",
	"rule added":                         "rule-added",
	"rule deleted":                       "rule-deleted",
	"rules changed":                      "rules-changed",
	"chains changed":                     "rules-changed",
	"packets with a foreign source":      "spoofed",
	"router ended; starting it again":    KindRouter,
	"bridge ended; starting it again":    "bridge-restarted",
	"responder ended; starting it again": "names-restarted",
	"responder answers again":            "names-up",
	"emperor running":                    "emperor-running",
	"stopping all vassals":               "emperor-stopping",
	"reloading all vassals":              KindReload,
	"report":                             "", // SIGUSR1 asks how all are; nothing happened

	"ini has another owner; stopping the vassal":                                "owner-changed",
	"vassal is beyond the policy; stopping it":                                  "beyond-policy",
	"somebody is at the door; starting the vassal":                              "woke",
	"vassal did not stop in time; killing it":                                   "killed",
	"device lost; starting the vassal in a new jail":                            "device-lost",
	"unsaved change of a rule is gone: its file was read again":                 "rule-lost",
	"responder does not stay up; vassals' questions for names are not answered": "names-down",
	"put back firewall rules that somebody removed or changed":                  "firewall-mended",
}

func init() {
	for state := range table {
		kindOf["vassal is "+string(state)] = "" // the same report
	}
}

// classify says of what kind a log line is, and how an event words it.
func classify(r *slog.Record) (kind, message string) {
	if r.Message == "state" && r.Level == slog.LevelDebug {
		if attrOf(r, "to").String() == string(Starting) {
			return "starting", "vassal starting"
		}
		return "", ""
	}
	kind, ok := kindOf[r.Message]
	switch {
	case !ok && r.Level >= slog.LevelError:
		kind = "error"
	case !ok && r.Level >= slog.LevelWarn:
		kind = "warning"
	case !ok && r.Level >= slog.LevelInfo:
		kind = "info"
	case kind == "died":
		if lived := attrOf(r, "lived"); lived.Kind() == slog.KindDuration && lived.Duration() < time.Millisecond {
			kind = "failed"
		}
	}
	return kind, r.Message
}

func attrOf(r *slog.Record, key string) (found slog.Value) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != key {
			return true
		}
		found = a.Value
		return false
	})
	return found
}
