package ini

import (
	"slices"
	"strings"
)

// internal are the variables by which uWSGI's processes know each other.
var internal = []string{
	"RELOADS", "VASSALS_DIR", "EMPEROR_FD", "BROODLORD_NUM", "EMPEROR_FD_CONFIG", "EMPEROR_PROXY", "JAIL_PID", "ORIGINAL_PROC_NAME",
}

// environment adds the options that UWSGI_… variables name: UWSGI_HTTP_SOCKET
// is http-socket.
func (l *loader) environment() {
	for _, variable := range l.Environ {
		assignment, ok := strings.CutPrefix(variable, "UWSGI_")
		name, value, assigned := strings.Cut(assignment, "=")
		if !ok || !assigned || slices.Contains(internal, name) {
			continue
		}
		key := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		l.add(Pair{Key: key, Value: value, Pos: Pos{File: "$UWSGI_" + name}}, false)
	}
	l.ofEnviron = len(l.entries)
}
