package nat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// knob is a sysctl as a path below /proc/sys, of the caller's thread's network
// namespace. Its text form is sysctl(8)'s: a device "eth0.5" is written eth0/5.
type knob string

func deviceKnob(v6 bool, device, name string) knob {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	return knob("net/" + family + "/conf/" + device + "/" + name)
}

var slashDot = strings.NewReplacer("/", ".", ".", "/")

func (k knob) String() string         { return slashDot.Replace(string(k)) }
func knobOf(s string) knob            { return knob(slashDot.Replace(s)) }
func (k knob) wellFormed() bool       { return strings.Count(string(k), "/") == 4 }
func (k knob) device() string         { return strings.Split(string(k), "/")[3] }
func (k knob) isOf(v6 bool) bool      { return strings.HasPrefix(string(k), "net/ipv6/") == v6 }
func (k knob) isForwarding() bool     { return strings.HasSuffix(string(k), "forwarding") }
func (k knob) set(value string) error { return k.wrap("set", os.WriteFile(k.path(), []byte(value), 0)) }
func (k knob) path() string           { return "/proc/sys/" + string(k) }
func (k knob) wrap(verb string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, k, err)
	}
	return nil
}

// value returns "" for a knob that is not there: the device is gone, or the
// kernel does not know it.
func (k knob) value() (string, error) {
	b, err := os.ReadFile(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), k.wrap("read", err)
}

// isOff is false for a knob that is not there.
func (k knob) isOff() (bool, error) {
	v, err := k.value()
	return v == "0", err
}
