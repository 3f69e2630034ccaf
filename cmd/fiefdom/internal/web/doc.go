// Package web is the page about all vassals that the emperor serves where
// emperor-web says. It takes what it shows from functions, and keeps the rates of
// the last hour; whoever asks changes nothing.
//
//	a request ─► guard (who, from where, how many) ─► pages (HTML) ─► watch: the vassals now, rates, series
//	                                               └► api (JSON)  ─► Source: drops, logs, events
//
// All that comes from vassals and their owners is hostile: names, what they say,
// what they write. The templates escape it, no style or script stands in the page,
// and the policy that goes with it allows none but the two files of ours.
package web
