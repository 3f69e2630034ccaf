// Package plaintext makes texts fit for a terminal: somebody else's words without
// what could steer it, and numbers and times in few columns.
package plaintext
