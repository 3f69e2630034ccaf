package main

import (
	"strings"

	"fiefdom/vassal"
)

// checkLimits says which limits of whole vassals the kernel can keep, as far as
// it can be known without the emperor's own cgroup.
func checkLimits() finding {
	c, err := vassal.MachineControllers()
	if err != nil {
		return warn("", "look for cgroup controllers: %v", err)
	}
	var can, cannot []string
	for _, option := range []string{vassal.LimitCPU, vassal.LimitMemory, vassal.LimitPIDs, vassal.LimitIO} {
		if where, ok := c.Where(option); ok {
			can = append(can, option+" ("+where+")")
		} else {
			cannot = append(cannot, option+": "+where)
		}
	}
	if len(cannot) > 0 {
		return warn("inis with these limits will be invalid; switch the controllers on, or leave the limits out", "%s", strings.Join(cannot, "\n"))
	}
	text := strings.Join(can, ", ")
	if strings.Contains(text, "(v2)") {
		text += "\nthose of v2 as far as the emperor's own cgroup has them: a unit of systemd needs Delegate=yes"
	}
	return fine("%s", text)
}
