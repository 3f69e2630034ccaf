// Package hostsfile keeps blocks of lines in a hosts file (hosts(5)), one for each
// instance, between two marks. Whatever is outside of them is somebody else's and
// stays as it is, byte by byte; so do the file's mode and owner. Who reads the
// file sees it before or after a change.
package hostsfile
