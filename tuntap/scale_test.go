package tuntap

import "os"

// scaled returns the full number when FIEFDOM_SOAK=1 asks for it.
func scaled(normal, full int) int {
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		return full
	}
	return normal
}
