package vassal

// Honoured says whether the option does something in a vassal's ini by our own
// doing, not by that of the app's uwsgi.
func Honoured(name string) bool {
	switch class(name) {
	case unknown, needless, appsOwn, logic:
		return false
	}
	return true
}

// Needless says whether the option alone makes no app server of a vassal: our
// own emperor does its job, or it only shapes a server that others ask for.
func Needless(name string) bool { return class(name) == needless }
