// Package ini reads uWSGI's ini dialect: ordered options, each with the file
// and line that it came from. It is the only place that knows the dialect; the
// packages that own options declare them as tables (Option) and get plain
// values (Decode).
//
// A file goes through these stages, each in a file of its own:
//
//	read    source.go   a name becomes bytes: a file, exec://, stdin; trusted.go has
//	                    what only files of the caller's own may read
//	scan    scan.go     magic variables (%n, %d, …), then lines and sections
//	pairs   pairs.go    key = value
//	add     add.go      in order; immediate options (include, set, if-*, for-*)
//	                    act here and may add further options
//	passes  passes.go   $(ENV), @(file), %(placeholder) in the values
//	late    load.go     inherit: its files are not touched by the passes
//
// An option that declare-option declares (declare.go) stands for others; they are
// Pairs that are Made.
//
// What users' files mean is what uWSGI 2.0 makes of them, down to its quirks;
// tests compare the two. Where a quirk is likely to surprise, a warning says
// so. Files may be hostile: everything that can grow is bounded by Limits.
package ini
