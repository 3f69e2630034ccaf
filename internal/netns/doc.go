// Package netns makes network namespaces and runs functions inside them. It is
// the only place of the program that changes the namespace of a thread.
//
// A network namespace belongs to a thread, a goroutine does not: work that has
// to happen in another namespace gets a goroutine of its own, locked to a
// thread, and that thread goes back to where it was before the scheduler may
// use it for anything else. A thread that cannot go back is given up.
//
//	caller ── Do(ns, fn) ──► goroutine, locked ── setns ── fn ── setns back ── unlock ──► caller goes on
//	                                                                └─ failed: the thread ends with the goroutine
//
// Sockets and devices stay in the namespace in which they were opened, whatever
// thread uses them later. A child process is born in the namespace of the thread
// that forks it, so commands started inside Do run in there. A goroutine started
// inside Do does not.
package netns
