package emperor

import "fiefdom/vassal"

// logOptions are about the emperor's own log, in the words of vassals' logs.
var logOptions = vassal.LogOptions(func(c *Config) *vassal.Logging { return &c.Log })
