// Package examples carries the examples in the program, so that its binary
// alone can show them.
package examples

import "embed"

// Quickstart is the folder of the first emperor and its two vassals.
//
//go:embed quickstart
var Quickstart embed.FS
