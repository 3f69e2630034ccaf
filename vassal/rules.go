package vassal

import "fiefdom/tuntap"

// Rule is a rule of a device or, where its direction says which chain, of a network.
type Rule = tuntap.DeviceRule
