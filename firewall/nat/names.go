package nat

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	chainPrefix = "fiefdom-"
	// maxInstance leaves room in the 28 characters of a chain's name
	// (XT_EXTENSION_MAXNAMELEN - 1) for chainPrefix and the longest ending.
	maxInstance = 28 - len(chainPrefix) - len("-post")
)

// chainBase is the part of chain names that says whose they are. A name that
// is too long or has unusual characters is cut and hashed; the + keeps such
// names apart from those that are taken as they are.
func chainBase(instance string) string {
	usable := len(instance) <= maxInstance
	var safe strings.Builder
	for _, c := range instance {
		if isAlnum(c) || strings.ContainsRune("_.-", c) {
			safe.WriteRune(c)
		} else {
			usable = false
		}
	}
	if usable {
		return chainPrefix + instance
	}
	sum := sha256.Sum256([]byte(instance))
	hash := "+" + hex.EncodeToString(sum[:4])
	cut := safe.String()
	return chainPrefix + cut[:min(len(cut), maxInstance-len(hash))] + hash
}
