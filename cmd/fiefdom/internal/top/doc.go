// Package top is the live table of "fiefdom top". It asks the emperor once a
// second for all vassals, and draws what changed: one model, with a table and,
// over it, a pane with the log or the status of one vassal.
package top
