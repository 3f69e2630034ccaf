//go:build !amd64

package hostile

func call32(*Site) Finding        { return absent("this processor has no such door") }
func callX32(*Site) Finding       { return absent("this processor has no such door") }
func hardwarePorts(*Site) Finding { return absent("this processor has no such door") }
