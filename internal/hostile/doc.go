// Package hostile is an app that tries to get out of its jail: a list of ways out,
// each a real attempt that can succeed where nothing stops it, and a program that
// tries them one by one and says of each whether it was contained or has escaped.
//
// No attempt harms a machine on which it succeeds. What could (a restart, another
// clock, a module) is asked for with an argument that is wrong, and that the kernel
// looks at after it has looked at who asks: the error tells which of the two it
// found first.
package hostile
