package main

import "fiefdom/internal/plaintext"

// plain is a text that is somebody else's word as it may go to a terminal.
func plain(s string) string { return plaintext.Text(s) }
