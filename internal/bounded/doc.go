// Package bounded accepts a bounded number of connections, and lets nobody in
// who keeps others out: when all places are taken, a newcomer has that of whom
// nothing was heard for longest.
package bounded
