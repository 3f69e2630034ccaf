package vassal

import (
	"testing"

	"fiefdom/tuntap"
)

// A device without a router takes no rules, so there is nothing to be done for it.
func TestRulesOfADeviceWithoutARouter(t *testing.T) {
	j := &Jail{links: []*link{{Link: Link{Device: "tap9"}}}}
	rules := []Link{{Device: "tap9", Rules: make([]tuntap.DeviceRule, 1)}}
	if err := j.SetRules(rules); err != nil || !j.HasRules(rules) {
		t.Errorf("%v; has them: %v", err, j.HasRules(rules))
	}
}
