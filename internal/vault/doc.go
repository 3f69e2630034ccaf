// Package vault is a process that holds an emperor's descriptors, and does
// nothing else, so that they outlive him: pidfds, namespaces, devices, sockets.
// The next emperor of the instance takes them out and goes on.
//
//	emperor ── Put KEY note, descriptors ──► vault ── Contents ──► next emperor
//	           Drop KEY                         └ while there is no emperor it
//	                                              hears what would be told him
//
// What is put under a key is there whole or not at all: it is one message. The
// note is a file in memory that comes along, so it may be of any size and no
// disk can be too full for it.
//
// The vault ends when it is told to, and when an emperor leaves it empty. An
// emperor whose vault dies starts another and fills it again.
package vault
