package responder

import "strings"

// maxName bounds a vassal's name in bytes, so that it fits before any network's
// and the zone's.
const maxName = 200

// HostName is the name that a vassal has in DNS; empty if its own cannot be one.
// Names with dots are names below the zone only.
func HostName(vassal string) string {
	name := strings.ToLower(vassal)
	if len(name) > maxName || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return ""
		}
	}
	return name
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
