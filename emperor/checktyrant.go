package emperor

import (
	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// CheckTyrant says what tyrant mode refuses of a vassal whose ini belongs to
// uid and gid, where no policy says more.
func CheckTyrant(c *vassal.Config, uid, gid uint32) ini.Errors {
	return append(tyrant(c, owner{uid, gid}), lowPorts(c)...)
}
