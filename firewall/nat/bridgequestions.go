package nat

import "fmt"

// askLimits are what a vassal may ask for names by UDP, of each family: as many
// questions as the responder hears of one asker, and of a usual length. The kernel
// counts what it has not cut yet as one packet, but by all its bytes.
var askLimits = []string{"2000/second burst 2000 packets", "256 kbytes/second"}

// questionRules keep a vassal's flood of questions from the responder's socket, whose
// queue all vassals of the bridge share. They look at datagrams alone, and come before
// whatever lets such pass.
func (b *Bridge) questionRules() (rules []string) {
	if b.NamesAt == 0 {
		return nil
	}
	ports := fmt.Sprint(dnsPort)
	if b.led() {
		ports = fmt.Sprintf("{ %d, %d }", dnsPort, b.NamesAt)
	}
	for _, v6 := range families {
		own := ofFamilyOf(b.Own, v6)
		if len(own) == 0 {
			continue
		}
		for _, limit := range askLimits {
			rules = append(rules, fmt.Sprintf("udp dport %s %s daddr %s limit rate over %s counter drop", ports, ip(v6), braces(own), limit))
		}
	}
	return rules
}
