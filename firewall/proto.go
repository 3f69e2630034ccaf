package firewall

import (
	"fmt"
	"strconv"
)

// IP protocol numbers that the text of rules has words for, or that carry
// ports (https://www.iana.org/assignments/protocol-numbers).
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoDCCP    = 33
	protoICMP6   = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

var protoNames = map[string]uint8{
	"any":   0,
	"icmp":  protoICMP,
	"icmp6": protoICMP6,
	"sctp":  protoSCTP,
	"tcp":   protoTCP,
	"udp":   protoUDP,
}

func protoText(proto uint8) string {
	for name, number := range protoNames {
		if number == proto {
			return name
		}
	}
	return strconv.Itoa(int(proto))
}

func parseProto(s string) (uint8, error) {
	if proto, ok := protoNames[s]; ok {
		return proto, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("unknown protocol %q; want tcp, udp, sctp, icmp, icmp6, any or a number from 1 to 255", s)
	}
	return uint8(n), nil
}

func hasPorts(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, protoDCCP, protoSCTP, protoUDPLite:
		return true
	}
	return false
}
