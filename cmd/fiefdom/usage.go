package main

import (
	"fmt"
	"strconv"
	"strings"

	"fiefdom/emperor"
	"fiefdom/vassal"
)

// usageLines tell what a vassal uses, each beside its limit.
func usageLines(line func(name, value string), s emperor.Status) {
	limits := s.Limits
	if limits == nil {
		limits = &emperor.LimitStatus{}
	}
	of := func(limited bool, limit string) string {
		if !limited {
			return ""
		}
		return " of " + limit
	}
	if s.PIDs > 0 {
		line("memory", size(s.MemoryBytes)+of(limits.MemoryBytes > 0, vassal.Size(limits.MemoryBytes)))
		text := fmt.Sprintf("%.1fs", s.CPUSeconds)
		if limits.CPUs > 0 {
			text += fmt.Sprintf(", throttled for %.1fs (limit %s CPUs)", s.ThrottledSeconds, strconv.FormatFloat(limits.CPUs, 'f', -1, 64))
		}
		line("cpu", text)
		line("tasks", strconv.Itoa(s.PIDs)+of(limits.PIDs > 0, strconv.Itoa(limits.PIDs)))
	}
	line("disk", strings.Join(limits.IO, ", "))
	if s.OOMKills > 0 {
		line("oom", fmt.Sprintf("%d processes killed for memory so far", s.OOMKills))
	}
}
