// Package migrate knows uWSGI 2.0's options of an emperor, its tuntap router,
// jails, hooks and vassals, and says what becomes of each of them here. What
// the option tables of the other packages honour follows from these tables
// (Tables); this one (rows) adds what a reader has to know: what differs on
// purpose, why an option is needless, what to write instead of one that is not
// there.
//
// "fiefdom migrate" judges files by it, and the tables of docs/migrating.md are
// made from it.
package migrate
