// Package logfile writes logs without ever holding up who writes them: a queue
// that loses and counts what a slow disk does not take, and a file that rotates.
//
// A log often lies in a folder that is somebody else's than the process that
// writes it. Libraries for rotation open, rename and remove paths with the
// process's own rights, so that whoever has the folder could lead a process of
// root by links to files that he may not touch. Here a folder is opened once;
// everything after that is done in it by plain names, never through a link, and
// with the rights that the caller gives.
package logfile
