// Package exposure judges how much an app could do to the machine and to its
// neighbours, from what is known of it: a row for each thing that stands between
// it and them, and a score of 0.0 (safe) to 10.0 (exposed) with what would lower
// it, in the manner of systemd-analyze security.
//
// It looks at nothing itself: Facts come from who can see the app, and Judge is a
// function of them. All rows, with their weights and reasons, are in rows.go.
package exposure
